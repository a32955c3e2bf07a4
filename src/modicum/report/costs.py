"""The table of what was spent on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modicum.ledger import Charge, Ledger
from modicum.report.format import count, escape, quantity, seconds
from modicum.report.tables import framed_table

__all__ = ["CostRow", "cost_row", "cost_rows", "cost_table", "uncounted_text"]

HEADS = ("part", "phase", "samples", "labels", "forward", "backward", "other", "time", "peak memory")


@dataclass(frozen=True)
class CostRow:
    """A part of the cost, or all of it."""

    what: str
    phase: str
    samples: int
    labels: int
    forward: int
    backward: int
    other: int
    seconds: float
    peak: int


def cost_row(charge: Charge, what: str = "", phase: str | None = None) -> CostRow:
    """A charge, under its own name and phase unless others are given."""
    passes = (charge.forward_flops, charge.backward_flops, charge.extra_flops)
    named = (what or charge.what, charge.phase if phase is None else phase)
    return CostRow(*named, charge.samples, charge.labels, *passes, charge.seconds, charge.peak_bytes)


def cost_rows(ledger: Ledger, total: str) -> list[CostRow]:
    """The charges of a ledger, and behind more than one their sum under the name `total`."""
    rows = [cost_row(charge) for charge in ledger.charges]
    return [*rows, cost_row(ledger.total(), total, "")] if len(rows) > 1 else rows


def cost_table(rows: Sequence[CostRow]) -> str:
    """The rows as HTML."""
    body = ""
    for row in rows:
        numbers = [quantity(v, "FLOP") for v in (row.forward, row.backward, row.other)]
        cells = [row.phase, count(row.samples), count(row.labels), *numbers, seconds(row.seconds)]
        cells.append(quantity(row.peak, "B"))
        body += f'<tr><th scope="row">{escape(row.what)}</th>{"".join(f"<td>{escape(c)}</td>" for c in cells)}</tr>'
    return framed_table(HEADS, body, "What was spent on what")


def uncounted_text(uncounted: Sequence[str]) -> str:
    """Which operations are in no number of the table, as HTML."""
    left = ", ".join(map(escape, uncounted))
    return (
        f"Operations without a formula, left out: {left}." if left else "Every operation has a formula and is counted."
    )
