"""What the page of a comparison shows, as plain values: no tensors, so that a page can be made from a stored run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from modicum.errors import DataError

__all__ = [
    "ClassCounts",
    "DataSummary",
    "Gallery",
    "Item",
    "KeepRate",
    "Recommendation",
    "ReportContent",
    "Row",
    "ScoreSummary",
]

Metric = Literal["accuracy", "R²"]
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class DataSummary:
    """The data set of a comparison.

    Args:
        name: Its name.
        train: Samples to train on.
        valid: Samples that choices are made on.
        test: Samples that results are reported on.
        classes: Names of the classes; empty for a regression.
        modality: Image, table or text.
        notes: What a reader should know.
        warnings: What a reader must know, such as overlap between the splits.
    """

    name: str
    train: int
    valid: int
    test: int
    classes: tuple[str, ...] = ()
    modality: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recommendation:
    """The answer.

    Args:
        sentence: One plain sentence, the headline of the page.
        detail: Its interval, its cost and how it was judged.
        verdict: `method` when a method pays, `control` when a control is cheaper, `none` when nothing reaches the target.
    """

    sentence: str
    detail: str
    verdict: Literal["method", "control", "none"]


@dataclass(frozen=True)
class Row:
    """One method at one budget, averaged over seeds; numbers that are not known are NaN.

    Args:
        method: Key of the method.
        title: What it does, in one line.
        family: Its family.
        budget: The budget as it was asked for, such as `10%`.
        keep: Fraction of the samples really used.
        control: Whether it is a control, which is always shown.
        n_seeds: Number of seeds.
        valid_mean: Metric on the validation split, mean over seeds.
        valid_std: Its standard deviation.
        test_mean: Metric on the test split, mean over seeds.
        test_std: Its standard deviation.
        samples: Samples passed through a model, choosing included.
        labels: Distinct labels used.
        flops_choose: FLOPs of choosing.
        flops_train: FLOPs of training.
        seconds_choose: Seconds of choosing.
        seconds_train: Seconds of training.
        peak_bytes: Largest memory.
        parameters: Parameters of the model.
        cost_ratio: FLOPs in all over those of training on everything.
        reaches_target: Whether its lower confidence bound reaches the target.
        recommended: Whether this is the recommended point.
        random_gap: Metric minus that of a random subset of the same size.
        random_p: Probability of so large a gap where there is no difference.
    """

    method: str
    title: str
    family: str
    budget: str
    keep: float
    control: bool
    n_seeds: int
    valid_mean: float
    valid_std: float
    test_mean: float
    test_std: float
    samples: float
    labels: float
    flops_choose: float
    flops_train: float
    seconds_choose: float
    seconds_train: float
    peak_bytes: float
    parameters: float
    cost_ratio: float
    reaches_target: bool
    recommended: bool = False
    random_gap: float = math.nan
    random_p: float = math.nan

    @property
    def flops(self) -> float:
        """FLOPs in all."""
        return self.flops_choose + self.flops_train

    @property
    def seconds(self) -> float:
        """Seconds in all."""
        return self.seconds_choose + self.seconds_train


@dataclass(frozen=True)
class ClassCounts:
    """How many samples of a class fall in each bin; the name is empty when classes are not told apart."""

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ScoreSummary:
    """How the scores of a method are spread.

    Args:
        method: Key of the method.
        kind: `value` (higher is more worth keeping), `difficulty` (higher is harder), or neither.
        unit: Unit of the scores.
        edges: Edges of the bins, one more than there are bins.
        counts: Samples in each bin, per class or once for all.

    Raises:
        DataError: A class has another number of bins than there are between the edges.
    """

    method: str
    kind: Literal["value", "difficulty", ""]
    unit: str
    edges: tuple[float, ...]
    counts: tuple[ClassCounts, ...]

    def __post_init__(self) -> None:
        for part in self.counts:
            if len(part.counts) != len(self.edges) - 1:
                raise DataError(
                    f"scores of {self.method!r}: class {part.name!r} has {len(part.counts)} counts for "
                    f"{len(self.edges)} edges; expected {max(len(self.edges) - 1, 0)}"
                )

    @classmethod
    def from_values(
        cls,
        method: str,
        kind: Literal["value", "difficulty", ""],
        unit: str,
        values: Sequence[float] | Any,
        targets: Sequence[int] | Any = None,
        class_names: Sequence[str] = (),
        bins: int = 32,
    ) -> ScoreSummary:
        """Bin scores; those that are not finite are left out.

        Args:
            method: Key of the method.
            kind: What a higher score means.
            unit: Unit of the scores.
            values: One score per sample (n,).
            targets: Class index per sample (n,), or None to not tell classes apart.
            class_names: Names of the classes.
            bins: Number of bins.

        Returns:
            The summary.

        Example:
            >>> ScoreSummary.from_values("margin", "value", "logits", [0.0, 1.0, 1.0], bins=2).counts[0].counts
            (1, 2)
        """
        import numpy as np

        scores = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(scores)
        edges = np.histogram_bin_edges(scores[finite], bins)
        groups = [("", finite)]
        if targets is not None:
            classes = np.asarray(targets)
            groups = [(name, finite & (classes == k)) for k, name in enumerate(class_names)]
        counts = [
            ClassCounts(name, tuple(int(c) for c in np.histogram(scores[mask], edges)[0])) for name, mask in groups
        ]
        return cls(method, kind, unit, tuple(float(e) for e in edges), tuple(counts))


@dataclass(frozen=True)
class Item:
    """One sample of a gallery.

    Args:
        id: Its id in the data set.
        label: Its label.
        note: Why it is here: its score, or `given 4, looks like 9`.
        png: A picture as PNG, or None.
        text: Its text, or None.

    Raises:
        DataError: The bytes are not a PNG.
    """

    id: str
    label: str
    note: str = ""
    png: bytes | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.png is not None and not self.png.startswith(PNG):
            raise DataError(
                f"png of item {self.id!r} starts with {self.png[:8]!r}; expected a PNG file, see thumbnail()"
            )


@dataclass(frozen=True)
class Gallery:
    """Samples worth a look."""

    title: str
    caption: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class KeepRate:
    """The fraction of a class that a method keeps, and whether that is worryingly low."""

    method: str
    budget: str
    class_name: str
    rate: float
    warning: bool = False


@dataclass(frozen=True)
class ReportContent:
    """Everything on the page.

    Args:
        title: Title of the page.
        data: The data set.
        metric: `accuracy` (a fraction, shown as percent) or `R²`.
        target: The metric to reach.
        recommendation: The answer.
        rows: One per method and budget.
        scores: Score distributions.
        correlation: Rank correlation of the scores, in the order of `scores` (s, s).
        galleries: Samples worth a look.
        keep_rates: What each method keeps of each class.
        uncounted: Operations that have no FLOP formula.
        settings: Recipe, seeds, budgets, versions, hardware; values may be dictionaries.
        command: The command that repeats the comparison.

    Raises:
        DataError: The correlation is not square in the number of scores.
    """

    title: str
    data: DataSummary
    metric: Metric
    target: float
    recommendation: Recommendation
    rows: tuple[Row, ...]
    scores: tuple[ScoreSummary, ...] = ()
    correlation: tuple[tuple[float, ...], ...] = ()
    galleries: tuple[Gallery, ...] = ()
    keep_rates: tuple[KeepRate, ...] = ()
    uncounted: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        n = len(self.scores)
        shape = [len(row) for row in self.correlation]
        if self.correlation and shape != [n] * n:
            raise DataError(f"correlation has rows of lengths {shape}; expected {n} rows of {n}, one per score")
