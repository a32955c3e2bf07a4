"""Accuracy against cost: one point per method, budget and seed, and their summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from modicum.ledger import Ledger, Phase

if TYPE_CHECKING:
    import pyarrow as pa

Bits: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

__all__ = ["CONTROLS", "Frontier", "Point", "Recommendation", "Row", "pack_bits", "summarize"]

NOT_IN_TABLE = ("ledger", "class_counts", "valid_right", "test_right")
CONTROLS = ("full", "random", "stratified", "short")


@dataclass(frozen=True)
class Point:
    """One trained model.

    Args:
        method: Key, with the options that differ from the defaults.
        budget: As asked for; `100%` where the method has none.
        seed: Of choosing and of training.
        keep: Share of the visits of the full run that training really made.
        samples: Number of distinct samples trained on.
        valid: Score on the validation split, on which every choice is made.
        test: Score on the test split, which no method sees.
        ledger: Choosing, training and evaluation.
        class_counts: Samples trained on of each class.
        valid_right: Which validation samples were answered right, packed (see `pack_bits`); empty for R².
        test_right: The same for the test samples.
    """

    method: str
    budget: str
    seed: int
    keep: float
    samples: int
    valid: float
    test: float
    ledger: Ledger
    class_counts: tuple[int, ...] = ()
    valid_right: str = ""
    test_right: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**{k: v for k, v in asdict(self).items() if k != "ledger"}, "ledger": self.ledger.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Point:
        """The inverse of `to_json`."""
        ledger, counts = Ledger.from_json(row["ledger"]), tuple(row["class_counts"])
        return cls(**{**row, "ledger": ledger, "class_counts": counts})


@dataclass(frozen=True)
class Row:
    """The points of a method and a budget together: means over seeds, deviations with one degree of freedom taken off.

    Args:
        method: As in `Point`.
        budget: As in `Point`.
        seeds: Which seeds it is the mean of.
        valid: (seeds,) scores on the validation split.
        test: (seeds,) scores on the test split.
        keep: Mean share of the visits of the full run.
        samples: Mean number of distinct samples.
        choose: Mean cost of choosing, as `flops`, `seconds` and `samples` (passes).
        train: Mean cost of training, likewise.
        peak_bytes: Largest resident memory.
        parameters: Of the model.
        cost: FLOPs of choosing and training over those of the full run.
        class_counts: Of the first seed.
        valid_right: (seeds, m) whether each validation sample was answered right; (seeds, 0) for R².
        test_right: The same for the test samples.
    """

    method: str
    budget: str
    seeds: tuple[int, ...]
    valid: tuple[float, ...]
    test: tuple[float, ...]
    keep: float
    samples: float
    choose: Mapping[str, float]
    train: Mapping[str, float]
    peak_bytes: int
    parameters: int
    cost: float
    class_counts: tuple[int, ...]
    valid_right: Bits
    test_right: Bits

    @property
    def control(self) -> bool:
        """Whether it is one of the controls."""
        return self.method.partition("(")[0] in CONTROLS

    @property
    def name(self) -> str:
        """Method and budget, for people."""
        return self.method if self.budget == "100%" else f"{self.method} at {self.budget}"


@dataclass(frozen=True)
class Recommendation:
    """What to do, in words and as data.

    Args:
        sentence: One plain sentence.
        detail: How sure it is, and against what.
        verdict: `method` when a method is the cheapest that reaches the target, `control` when a control is, `none`
            when only the full data reach it.
        row: The recommended row; None when nothing is recommended.
        target: The score on the validation split that had to be reached.
        sure: Names of the rows that surely reach it.
    """

    sentence: str
    detail: str
    verdict: str
    row: Row | None
    target: float
    sure: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Frontier:
    """What a comparison found.

    Args:
        points: One per method, budget and seed.
        metric: `accuracy` or `R²`.
        recommendation: What to do.
        folder: Where the run is; None when nothing was stored.
        finished: Whether every planned point is there.
    """

    points: tuple[Point, ...]
    metric: str
    recommendation: Recommendation
    folder: Path | None = None
    finished: bool = True
    planned: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def report(self) -> Path | None:
        """The page with the pictures."""
        return self.folder / "report.html" if self.folder else None

    def rows(self) -> list[Row]:
        """The summary, in the order of the points."""
        return summarize(self.points)

    def table(self) -> pa.Table:
        """Every point with every ledger column, as a table."""
        import pyarrow as pa

        rows = []
        for point in self.points:
            row: dict[str, Any] = {k: v for k, v in point.to_json().items() if k not in NOT_IN_TABLE}
            phases: tuple[Phase, ...] = ("choose", "train", "evaluate")
            for phase in phases:
                total = asdict(point.ledger.total(phase))
                dropped = ("phase", "what", "uncounted", "sources")
                row |= {f"{phase}_{k}": v for k, v in total.items() if k not in dropped}
            rows.append(row)
        return pa.Table.from_pylist(rows)


def summarize(points: Sequence[Point]) -> list[Row]:
    """Rows of points; their cost is relative to the mean of the full runs."""
    full = [p.ledger.total("train").flops for p in points if p.method == "full"]
    reference = float(np.mean(full)) if full else float("nan")
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.method, point.budget), []).append(point)
    return [_row(group, reference) for group in groups.values()]


def pack_bits(right: Any) -> str:
    """(m,) booleans as text: eight to two hexadecimal digits, with their number in front.

    Example:
        >>> pack_bits([True, False, True])
        '3:a0'
    """
    bits = np.asarray(right, dtype=bool)
    return f"{len(bits)}:{np.packbits(bits).tobytes().hex()}"


def _unpack(packed: Sequence[str]) -> Bits:
    rows = []
    for text in packed:
        count, _, digits = text.partition(":")
        rows.append(np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=int(count or 0)).astype(bool))
    return np.stack(rows)


def _row(group: list[Point], reference: float) -> Row:
    def costs(phase: Any) -> dict[str, float]:
        totals = [p.ledger.total(phase) for p in group]
        return {
            key: float(np.mean([getattr(t, key) for t in totals])) for key in ("flops", "seconds", "samples", "labels")
        }

    choose, train = costs("choose"), costs("train")
    return Row(
        method=group[0].method,
        budget=group[0].budget,
        seeds=tuple(p.seed for p in group),
        valid=tuple(p.valid for p in group),
        test=tuple(p.test for p in group),
        keep=float(np.mean([p.keep for p in group])),
        samples=float(np.mean([p.samples for p in group])),
        choose=choose,
        train=train,
        peak_bytes=max(p.ledger.total().peak_bytes for p in group),
        parameters=group[0].ledger.total("train").parameters,
        cost=(choose["flops"] + train["flops"]) / reference,
        class_counts=group[0].class_counts,
        valid_right=_unpack([p.valid_right for p in group]),
        test_right=_unpack([p.test_right for p in group]),
    )
