"""Accuracy against cost: one point per method, budget and seed, and their summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modicum.ledger import Ledger, Phase

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CONTROLS", "Frontier", "Point", "Recommendation", "Row", "lower_bound", "summarize"]

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
        resolution: By how much one sample of the validation split moves the score; 0 for R².
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
    resolution: float = 0.0

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
        resolution: As in `Point`.
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
    resolution: float = 0.0

    @property
    def bound(self) -> float:
        """Lower confidence bound of the score on the validation split."""
        return lower_bound(self.valid, resolution=self.resolution)

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
    """

    sentence: str
    detail: str
    verdict: str
    row: Row | None
    target: float


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
            row: dict[str, Any] = {k: v for k, v in point.to_json().items() if k not in ("ledger", "class_counts")}
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
        resolution=group[0].resolution,
    )


def lower_bound(values: Sequence[float], confidence: float = 0.95, resolution: float = 0.0) -> float:
    """One-sided lower confidence bound of a mean, by Student's t: mean - t_{confidence, n-1} max(s, r) / sqrt(n).

    Args:
        values: At least two; one value bounds nothing, and its bound is minus infinity.
        confidence: Of the bound.
        resolution: r, the smallest deviation to believe: an accuracy moves in steps of one sample, so seeds that agree
            exactly still say no more than that.

    Example:
        >>> round(lower_bound([0.9, 0.92, 0.94]), 4)
        0.8863
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return -np.inf
    return float(np.mean(values) - t.ppf(confidence, n - 1) * max(resolution, np.std(values, ddof=1)) / np.sqrt(n))
