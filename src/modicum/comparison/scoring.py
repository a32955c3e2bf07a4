"""What scores are good for: what a model loses when the best or the worst go first, and which wrong labels they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from modicum.arrays import NumPy
from modicum.context import Context
from modicum.data import load
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError
from modicum.ledger import Ledger
from modicum.measurement.features import Features
from modicum.measurement.learners import Problem, make_learner
from modicum.measurement.utilities import Utility
from modicum.scores import Scores
from modicum.training.recipe import Recipe

__all__ = ["Curves", "Detection", "class_summaries", "detection", "keep_curves", "true_labels"]

SHARES = (0.02, 0.05, *(step / 10 for step in range(1, 11)))
DIMENSIONS = 64  # of the features that curves train on: principal components where there are more


@dataclass(frozen=True)
class Curves:
    """Test metric of a learner trained on the first so many samples of three orders.

    Args:
        shares: (p,) shares of the training samples that are kept, rising to 1.
        best: (p,) with the first of the ranking kept: adding the best first, or removing the worst first.
        worst: (p,) with the last of it kept: removing the best first.
        random: (p,) mean over random orders.
        deviation: (p,) standard deviation over them.
        metric: `accuracy` or `R²`.
        learner: What was trained, for people.
    """

    shares: tuple[float, ...]
    best: tuple[float, ...]
    worst: tuple[float, ...]
    random: tuple[float, ...]
    deviation: tuple[float, ...]
    metric: str
    learner: str

    def gain(self) -> float:
        """Mean height of the curve of the best over that of random orders, over all shares."""
        return self._over(self.best)

    def loss(self) -> float:
        """The same for the worst: negative where removing the best first hurts more than removing anything."""
        return self._over(self.worst)

    def _over(self, curve: tuple[float, ...]) -> float:
        x, y = np.asarray(self.shares), np.asarray(curve) - np.asarray(self.random)
        if len(x) < 2:
            return float(y.mean())
        return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / (x[-1] - x[0]))


@dataclass(frozen=True)
class Detection:
    """How well scores find labels that are known to be wrong, the most suspicious first.

    Args:
        wrong: How many there are.
        of: Of how many samples.
        precision: Share of wrong labels among the `wrong` most suspicious samples.
        auroc: Probability that a wrong label is more suspicious than a right one.
        found: (p,) share of the wrong labels found.
        inspected: (p,) when this share of the samples was inspected.
    """

    wrong: int
    of: int
    precision: float
    auroc: float
    found: tuple[float, ...]
    inspected: tuple[float, ...]


def keep_curves(
    scores: Scores,
    data: Splits,
    ctx: Context,
    learner: Any = "ridge",
    recipe: Recipe | None = None,
    repeats: int = 5,
) -> Curves:
    """Train on the first 2, 5, 10, ..., 100 percent of the ranking, of its reverse, and of random orders; test.

    Adding samples in an order and removing them in the reverse one pass through the same sets, so these are the addition
    and the removal curves. Booked as evaluation.

    Args:
        scores: Of the training samples of `data`.
        data: The test split is only reported on.
        ctx: Device, seed and ledger.
        learner: Of the utilities measurement; on the inputs, reduced to 64 principal components where there are more.
        recipe: For the learner `network`.
        repeats: Random orders.

    Returns:
        The curves.

    Raises:
        DataError: The scores are not of these samples.
    """
    train = data.train
    if len(scores) != len(train) or not np.array_equal(scores.ids, train.ids):
        raise DataError(f"scores have {len(scores)} ids that are not those of the {len(train)} training samples")
    n = len(train)
    sizes = sorted({max(1, round(share * n)) for share in SHARES})
    order = scores.ranking()
    draws = ctx.generator("curves")
    orders = [order, order[::-1], *(torch.randperm(n, generator=draws).numpy() for _ in range(repeats))]
    masks = torch.zeros(len(orders), len(sizes), n, dtype=torch.bool)
    for row, ranking in zip(masks, orders):
        for mask, size in zip(row, sizes):
            mask[torch.from_numpy(ranking[:size].copy())] = True
    with ctx.ledger.clock("evaluate", "curves"):
        oracle = _oracle(data, make_learner(learner), recipe, ctx)
        values = oracle.values(masks.flatten(0, 1)).reshape(len(orders), len(sizes)).numpy()
    metric = "accuracy"
    if not oracle.problem.classes:  # of standardized targets the variance is known
        metric, variance = "R²", float(oracle.problem.wanted.var(correction=0))
        values = 1 + values / max(variance, 1e-12)
    return Curves(
        tuple(size / n for size in sizes),
        tuple(values[0].tolist()),
        tuple(values[1].tolist()),
        tuple(values[2:].mean(0).tolist()),
        tuple(values[2:].std(0, ddof=1).tolist() if repeats > 1 else [0.0] * len(sizes)),
        metric,
        str(learner),
    )


def _oracle(data: Splits, learner: Any, recipe: Recipe | None, ctx: Context) -> Utility:
    alone = ctx.with_(ledger=Ledger(), store=None)
    table = Features("inputs").measure(Splits(data.train, data.test, data.test), recipe or Recipe(), alone)
    x, queries = (rows.double().to(ctx.device) for rows in (table.train, table.valid))
    if x.shape[1] > DIMENSIONS:
        few = x[torch.randperm(len(x), generator=ctx.generator("components"))[:10_000]]
        mean = few.mean(0)
        _, basis = torch.linalg.eigh((few - mean).T @ (few - mean))
        basis = basis[:, -DIMENSIONS:]
        x, queries = (x - mean) @ basis, (queries - mean) @ basis
        scale = x.std(0).max()
        x, queries = x / scale, queries / scale
    classes = data.train.info.task == "classification"
    targets, wanted = (
        (d.labels if classes else d.prepare_targets().double().flatten()) for d in (data.train, data.test)
    )
    problem = Problem(
        x, targets, queries, wanted, data.train.classes if classes else 0, data.train, data.test, recipe, alone
    )
    return Utility(problem, learner)


def detection(scores: Scores, wrong: NumPy) -> Detection | None:
    """How well the scores find wrong labels: the lowest values, or the highest difficulties, first.

    Args:
        scores: Of n samples.
        wrong: (n,) boolean, which labels are known to be wrong.

    Returns:
        None where all labels are right, or all are wrong.

    Example:
        >>> scores = Scores(np.array([0.1, 0.9, 0.8]), np.arange(3), "x", "value", "points")
        >>> detection(scores, np.array([True, False, False])).precision
        1.0
    """
    from scipy.stats import rankdata

    n, errors = len(scores), int(np.sum(wrong))
    if errors in (0, n):
        return None
    suspicion = -scores.values if scores.kind == "value" else scores.values
    order = np.lexsort((scores.ids, -suspicion))
    found = np.cumsum(wrong[order]) / errors
    at = np.unique(np.linspace(1, n, 101).astype(int))
    ranks = rankdata(suspicion)
    auroc = (ranks[wrong].sum() - errors * (errors + 1) / 2) / (errors * (n - errors))
    return Detection(
        errors,
        n,
        float(wrong[order[:errors]].mean()),
        float(auroc),
        (0.0, *found[at - 1].tolist()),
        (0.0, *(at / n).tolist()),
    )


def true_labels(data: Any, train: Dataset, column: str, options: Mapping[str, Any]) -> NumPy:
    """The right class of each training sample, from another column of the same data.

    Args:
        data: What `modicum.load` understands.
        train: The training samples that were loaded from it.
        column: Name of the column.
        options: That it was loaded with.

    Raises:
        DataError: The column lacks a sample, or has a class that the training samples do not know.
    """
    told = load(data, **{**options, "label": column, "limit": None})
    classes = {name: number for number, name in enumerate(train.info.classes)}
    unknown = [name for name in told.train.info.classes if name not in classes]
    if unknown:
        raise DataError(
            f"truth={column!r} has class {unknown[0]!r}, which the labels have not; expected {', '.join(classes)}"
        )
    number = np.array([classes[name] for name in told.train.info.classes])
    right: dict[Any, int] = {}
    for split in reversed(told):  # where the test split is a file of its own, its ids do not count
        right.update(zip(split.ids.tolist(), number[split.labels.numpy()].tolist()))
    missing = [key for key in train.ids.tolist() if key not in right]
    if missing:
        raise DataError(f"truth={column!r} has no label for sample {missing[0]!r}")
    return np.array([right[key] for key in train.ids.tolist()])


def class_summaries(scores: Scores, train: Dataset) -> list[dict[str, Any]]:
    """For each class how its scores are spread, and what share of it is in the lowest tenth of all (highest, of
    difficulties); one row for everything where there are no classes."""
    last = np.zeros(len(scores), dtype=bool)
    tail = max(1, len(scores) // 10)
    suspicion = -scores.values if scores.kind == "value" else scores.values
    last[np.lexsort((scores.ids, -suspicion))[:tail]] = True
    if train.info.task == "classification":
        labels = train.labels.numpy()
        groups = [(name, labels == c) for c, name in enumerate(train.info.classes)]
    else:
        groups = [("all", np.ones(len(scores), dtype=bool))]
    rows = []
    for name, mask in groups:
        if not mask.any():
            continue
        values = scores.values[mask]
        low, quarter, median, three, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1], method="nearest")
        finite = values[np.isfinite(values)]
        rows.append(
            {
                "class": name,
                "samples": int(mask.sum()),
                "mean": float(finite.mean()) if len(finite) else float("nan"),
                "deviation": float(finite.std()) if len(finite) else float("nan"),
                "least": float(low),
                "quarter": float(quarter),
                "median": float(median),
                "three_quarters": float(three),
                "greatest": float(high),
                "in_last_tenth": float(last[mask].mean()),
            }
        )
    return rows
