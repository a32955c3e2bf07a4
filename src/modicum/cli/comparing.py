"""`modicum compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tyro.conf import Positional

from modicum.cli.common import Common, RecipeOptions, announce, print_rows, recipe_of

if TYPE_CHECKING:
    from modicum.comparison.frontier import Frontier

__all__ = ["Compare", "print_frontier"]


@dataclass(frozen=True)
class Compare(Common):
    """The main job: which way of spending less works on this data set, and what does it save?

    Args:
        data: A built-in name (digits, iris, wine, breast_cancer, diabetes), a file or a folder.
        methods: Keys, with options or without: el2n "dm(iterations=500)"; a good choice when left out.
        budgets: How much to keep: 10%, 500 or 10/class.
        seeds: Number of repetitions.
        target: Score on the validation split to reach; full data less the margin when left out.
        margin: How much less than full data is good enough.
        max_seconds: Stop then, with the best answer so far; the same command goes on later.
        out: Folder of the run.
        recipe: How to train; only what differs from what suits the data.
    """

    data: Positional[str]
    methods: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ("10%", "30%", "50%")
    seeds: int = 5
    target: float | None = None
    margin: float = 0.005
    max_seconds: float | None = None
    out: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Compare, print the table and where the page is."""
        from modicum.comparison import DEFAULT_METHODS
        from modicum.verbs import compare

        frontier = compare(
            self.data,
            self.methods or DEFAULT_METHODS,
            self.budgets,
            self.seeds,
            recipe_of(self.recipe, self.data, self.loading),
            target=self.target,
            margin=self.margin,
            max_seconds=self.max_seconds,
            ctx=self.context(),
            folder=self.out,
            announce=announce,
            **self.loading,
        )
        print_frontier(frontier, self.json)


def print_frontier(frontier: Frontier, as_json: bool) -> None:
    """The table of a comparison, the answer, and where the page is."""
    import numpy as np

    rows = []
    for row in frontier.rows():
        deviation = f" ± {100 * np.std(row.test, ddof=1):.1f}" if len(row.seeds) > 1 else ""
        score = (
            f"{100 * np.mean(row.test):.1f}{deviation}" if frontier.metric == "accuracy" else f"{np.mean(row.test):.3f}"
        )
        rows.append(
            {
                "method": row.method,
                "keep": row.budget,
                frontier.metric: score,
                "cost %": f"{100 * row.cost:.0f}",
                "choosing %": f"{100 * row.cost * row.choose['flops'] / max(1.0, row.choose['flops'] + row.train['flops']):.0f}",
                "seconds": f"{row.choose['seconds'] + row.train['seconds']:.1f}",
                "seeds": len(row.seeds),
            }
        )
    advice = frontier.recommendation
    state = (
        ""
        if frontier.finished
        else f" So far: {len(frontier.points)} of {frontier.planned} points; run again to go on."
    )
    note = f"\n{advice.sentence}\n{advice.detail}{state}\n" + "".join(f"Note: {n}\n" for n in frontier.notes)
    more = {
        "recommendation": {"sentence": advice.sentence, "detail": advice.detail, "verdict": advice.verdict},
        "finished": frontier.finished,
        "folder": str(frontier.folder),
        "report": str(frontier.report),
    }
    print_rows(rows, as_json, list(rows[0]) if rows else [], note + f"Report: {frontier.report}", more)
