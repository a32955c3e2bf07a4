"""The commands about methods: what there is, and what is behind their claims."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from modicum.cli.common import print_rows, say
from modicum.errors import ModicumError

__all__ = ["Evidence", "Methods"]


@dataclass(frozen=True)
class Methods:
    """What there is, what it saves, what it needs.

    Args:
        family: Only this family.
        json: Print as JSON.
    """

    family: Positional[str] = ""
    json: bool = False

    def run(self) -> None:
        """Print the table of methods."""
        from modicum.methods import FAMILIES, family_of, need_text, table

        if self.family and self.family not in FAMILIES:
            raise ModicumError(f"family {self.family!r} is unknown; expected one of {', '.join(FAMILIES)}")
        rows = [
            {
                "method": key,
                "family": family_of(kind),
                "what": kind.card.title,
                "saves": ", ".join(kind.card.saves),
                "needs": ", ".join(need_text(need) for need in kind().needs()),
                "paper": kind.card.paper,
            }
            for key, kind in table().items()
            if self.family in ("", family_of(kind))
        ]
        print_rows(rows, self.json, ["method", "family", "what", "saves", "needs"], "methods")


@dataclass(frozen=True)
class Evidence:
    """Run the claims of a method, or of all.

    Args:
        keys: Methods; all when left out.
        seeds: Number of repetitions of each claim.
        folder: Where the evidence is.
        out: JSON file to write.
        json: Print the result as JSON.
    """

    keys: Positional[tuple[str, ...]] = ()
    seeds: int = 3
    folder: str = "evidence"
    out: str | None = None
    json: bool = False

    def run(self) -> None:
        """Run and print; a claim that fails is shown as failing."""
        from modicum.evidence import run_evidence

        rows = run_evidence(Path(self.folder), self.keys, self.seeds, say)
        if self.out:
            Path(self.out).write_text(json.dumps(rows, indent=1))
        claims = [claim for row in rows["methods"] for claim in row["claims"]]
        note = f"{sum(c['holds'] for c in claims)} of {len(claims)} claims hold here."
        if self.json:
            print_rows(claims, True, [], note, rows)
            return
        short = [
            {
                "method": row["method"],
                "claims": len(row["claims"]),
                "hold": sum(c["holds"] for c in row["claims"]),
                "seconds": row["seconds"],
            }
            for row in rows["methods"]
        ]
        print_rows(short, False, list(short[0]), note)
