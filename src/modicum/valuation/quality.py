"""Quality: a few samples are judged good or bad, a small classifier judges the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from modicum.arrays import NumPy, class_indices, features
from modicum.errors import DataError, ModicumError
from modicum.methods import Card
from modicum.reading import by_id, rows_of
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.methods import Measurement

__all__ = ["ENCODERS", "Judging", "Quality", "best_judging", "platt", "quality_scores", "tables_of"]

ENCODERS = ("auto", "inputs", "statistics", "both", "trained")
CLASSIFIERS = ("auto", "logistic", "forest")
CALIBRATIONS = ("platt", "isotonic", "none")
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
TREES = 100
ROWS = 4096  # that are standardized at a time
CLIP = 6.0  # standard deviations beyond which a feature says no more


class Judging(NamedTuple):
    """What a small classifier makes of the samples.

    Args:
        probabilities: (n,) calibrated probability of being good; of the judged samples that of models that did not see
            them.
        scores: (n,) what the classifier gave before calibration, of the same order but without ties of calibration.
        loss: Mean cross-entropy of the calibrated probabilities on the judged samples, in nats, none of them seen.
        classifier: What won, such as `logistic(strength=0.1)`.
    """

    probabilities: NumPy
    scores: NumPy
    loss: float
    classifier: str


def platt(scores: Any, labels: Any) -> tuple[float, float]:
    """The logistic curve that turns scores into probabilities: `1 / (1 + exp(-(a s + b)))`.

    Maximum likelihood with the targets `(n1 + 1) / (n1 + 2)` and `1 / (n0 + 2)` in place of 1 and 0, which keeps it finite
    where the scores separate the classes; a is at least 0, so that the order of the scores stays.

    Args:
        scores: (m,) numbers.
        labels: (m,) 1 or 0.

    Returns:
        a and b.

    Raises:
        DataError: Shapes do not fit.

    Example:
        >>> a, b = platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
        >>> a > 0, abs(b) < 1e-6
        (True, True)

    Reference:
        Platt, Probabilistic outputs for support vector machines, 1999; Lin, Lin and Weng, A note on Platt's probabilistic
        outputs for support vector machines, 2007, Machine Learning 68.
    """
    from scipy.optimize import minimize

    good = class_indices("labels", labels)
    s = np.asarray(scores, dtype=np.float64)
    if s.shape != good.shape or not np.isfinite(s).all():
        raise DataError(f"scores has shape {s.shape}; expected {good.shape} finite numbers, one a label")
    n1, n0 = int(good.sum()), int(len(good) - good.sum())
    target = np.where(good == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    scale = max(float(s.std()), 1e-12)
    center = float(s.mean())
    z = (s - center) / scale

    def loss(w: NumPy) -> tuple[float, NumPy]:
        logit = w[0] * z + w[1]
        off = 1 / (1 + np.exp(-np.clip(logit, -500, 500))) - target
        return float((np.logaddexp(0, logit) - target * logit).sum()), np.array([(off * z).sum(), off.sum()])

    start = np.array([1.0, np.log((n1 + 1) / (n0 + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)], tol=1e-12)
    a = float(found.x[0]) / scale
    return a, float(found.x[1]) - a * center


def quality_scores(
    rows: Any,
    at: Any,
    labels: Any,
    *,
    classifier: str = "auto",
    calibration: str = "platt",
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    generator: torch.Generator | None = None,
) -> Judging:
    """The probability of being good of every sample, from a few that were judged.

    Features are standardized by all samples, cut at 6 deviations and divided by sqrt(d), each table by its own, so that a
    short one counts as much as a long one; then they stand side by side. Candidates are logistic
    regressions `min sum_i loss(w x_i + b, y_i) + strength ||w||^2 / 2` (each strength) and a forest of 100 trees.
    Each is trained on all folds but one and scores that one, its scores are calibrated by Platt's curve (see `platt`) or by
    isotonic regression, and the candidate of the least cross-entropy on the samples left out wins. It is trained on all
    judged samples for the others; the judged ones keep the scores of the models that did not see them.

    Args:
        rows: (n, d) features of all samples, or a list of such tables.
        at: (m,) positions of the judged samples.
        labels: (m,) 1 for good, 0 for bad; at least two of each.
        classifier: `logistic`, `forest`, or `auto` for the better of both.
        calibration: `platt`, `isotonic` (from some 500 judged samples on) or `none`.
        strengths: Of the penalty, which are tried.
        folds: Of the cross-validation, fewer where there are fewer good or bad ones.
        generator: Of the folds and trees.

    Returns:
        See `Judging`. Time is that of some 35 small trainings, memory beside the features that of 4,096 rows of them.

    Raises:
        DataError: Shapes or positions do not fit, or all judged samples are alike.
        ModicumError: An option is unknown.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> rows = draw.normal(size=(200, 5))
        >>> good = (rows[:, 0] > 0).astype(int)
        >>> found = quality_scores(rows, np.arange(60), good[:60])
        >>> bool(((found.probabilities[60:] > 0.5) == good[60:]).mean() > 0.9)
        True

    Reference:
        Gunasekar et al., Textbooks Are All You Need, 2023, arXiv 2306.11644.
    """
    given = list(rows) if isinstance(rows, (list, tuple)) else [rows]
    plain = [features("rows" if len(given) == 1 else f"rows[{i}]", part) for i, part in enumerate(given)]
    if len({len(part) for part in plain}) != 1:
        raise DataError(
            f"rows has tables of {[len(part) for part in plain]} rows; expected as many, at least one table"
        )
    positions, good = _judged(at, labels, len(plain[0]))
    _check(classifier, calibration)
    if not strengths or not all(float(s) > 0 for s in strengths):
        raise ModicumError(f"strengths={strengths!r}; expected numbers > 0")
    if isinstance(folds, bool) or folds < 2:
        raise ModicumError(f"folds={folds!r}; expected an integer >= 2")
    generator = generator or torch.Generator().manual_seed(0)
    fold = _folds(good, min(folds, int(min(good.sum(), len(good) - good.sum()))), generator)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    kinds: list[tuple[str, float]] = [("logistic", float(s)) for s in strengths] if classifier != "forest" else []
    kinds += [("forest", 0.0)] if classifier != "logistic" else []
    scales = [_scales(part) for part in plain]
    few = _standardized(plain, scales, positions)
    best: tuple[float, tuple[str, float], NumPy] | None = None
    for kind in kinds:
        unseen = np.empty(len(good))
        for number in range(int(fold.max()) + 1):
            out = fold == number
            unseen[out] = _trained(kind, few[~out], good[~out], seed)(few[out])
        loss = _cross_entropy(_cross_calibrated(unseen, good, fold, calibration), good)
        if best is None or loss < best[0] - 1e-12:
            best = (loss, kind, unseen)
    assert best is not None
    loss, kind, unseen = best
    judge = _trained(kind, few, good, seed)
    scores = np.concatenate([judge(_standardized(plain, scales, block)) for block in _blocks(len(plain[0]))])
    scores[positions] = unseen
    curve = _curve(unseen, good, calibration)
    name = f"logistic(strength={kind[1]:g})" if kind[0] == "logistic" else "forest"
    return Judging(curve(scores), scores, loss, name)


def best_judging(
    tables: Mapping[str, Any], at: Any, labels: Any, generator: torch.Generator, **options: Any
) -> tuple[str, Judging]:
    """The judging of the features that judge best: those of the least cross-entropy on judged samples left out.

    Args:
        tables: (n, d) features of all samples, or lists of them, by name; each gets the same folds.
        at: (m,) positions of the judged samples.
        labels: (m,) 1 for good, 0 for bad.
        generator: Of the folds.
        options: Of `quality_scores`.

    Returns:
        The name of the features, and what came of them.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(100, 3))
        >>> draw, good = torch.Generator().manual_seed(0), (rows[:40, 0] > 0).astype(int)
        >>> best_judging({"noise": rows[:, 1:], "all": rows}, np.arange(40), good, draw)[0]
        'all'
    """
    state = generator.get_state()
    found: dict[str, Judging] = {}
    for name, rows in tables.items():
        generator.set_state(state)
        found[name] = quality_scores(rows, at, labels, generator=generator, **options)
    best = min(found, key=lambda name: found[name].loss)
    return best, found[best]


def _judged(at: Any, labels: Any, n: int) -> tuple[NumPy, NumPy]:
    positions = class_indices("at", at)
    if positions.max() >= n or len(np.unique(positions)) < len(positions):
        raise DataError(f"at reaches {int(positions.max())}; expected different positions below {n}")
    good = class_indices("labels", labels, len(positions))
    if good.max() > 1:
        raise DataError(f"labels has the entry {int(good.max())}; expected 1 for good and 0 for bad")
    counts = np.bincount(good, minlength=2)
    if counts.min() < 2:
        raise DataError(
            f"labels: of {len(good)} judged samples {counts[1]} are good and {counts[0]} bad; expected at least two of "
            "each: judge more samples"
        )
    return positions, good


def _check(classifier: str, calibration: str) -> None:
    if classifier not in CLASSIFIERS:
        raise ModicumError(f"classifier={classifier!r}; expected one of {CLASSIFIERS}")
    if calibration not in CALIBRATIONS:
        raise ModicumError(f"calibration={calibration!r}; expected one of {CALIBRATIONS}")


def _folds(good: NumPy, folds: int, generator: torch.Generator) -> NumPy:
    """A fold for each sample, good and bad ones in equal parts."""
    fold = np.empty(len(good), dtype=np.int64)
    for label in (0, 1):
        mine = np.flatnonzero(good == label)
        fold[mine[torch.randperm(len(mine), generator=generator).numpy()]] = np.arange(len(mine)) % folds
    return fold


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, n, ROWS)]


def _scales(rows: NumPy) -> tuple[NumPy, NumPy]:
    """Mean and deviation of each column; the latter infinite where the column says nothing."""
    mean = rows.mean(0, dtype=np.float64)
    deviation = np.sqrt(sum(np.square(rows[block] - mean).sum(0) for block in _blocks(len(rows))) / len(rows))
    return mean, np.where(deviation > 1e-9 * np.maximum(np.abs(mean), 1), deviation, np.inf)


def _standardized(tables: Sequence[NumPy], scales: Sequence[tuple[NumPy, NumPy]], at: Any) -> NumPy:
    """Some rows of the tables side by side, each table of a length near 1."""
    parts = [
        np.clip((rows[at] - mean) / scale, -CLIP, CLIP) / np.sqrt(rows.shape[1])
        for rows, (mean, scale) in zip(tables, scales, strict=True)
    ]
    return np.concatenate(parts, axis=1)


def _trained(kind: tuple[str, float], rows: NumPy, good: NumPy, seed: int) -> Any:
    """A function from features to scores on the scale of logits."""
    if kind[0] == "logistic":
        from sklearn.linear_model import LogisticRegression

        # features have a length near 1: a strength of 1 holds about one judged sample in balance
        linear = LogisticRegression(C=1 / kind[1], max_iter=2000, tol=1e-6).fit(rows, good)
        return lambda x: linear.decision_function(x).astype(np.float64)
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(TREES, min_samples_leaf=2, random_state=seed).fit(rows, good)

    def logits(x: NumPy) -> NumPy:
        p = forest.predict_proba(x)[:, 1].astype(np.float64)
        return np.asarray(np.log((p * TREES + 1) / ((1 - p) * TREES + 1)))

    return logits


def _curve(scores: NumPy, good: NumPy, calibration: str) -> Any:
    if calibration == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        steps = IsotonicRegression(y_min=1 / (len(good) + 2), y_max=1 - 1 / (len(good) + 2), out_of_bounds="clip")
        return steps.fit(scores, good).predict
    a, b = platt(scores, good) if calibration == "platt" else (1.0, 0.0)
    return lambda s: 1 / (1 + np.exp(-np.clip(a * s + b, -500, 500)))


def _cross_calibrated(scores: NumPy, good: NumPy, fold: NumPy, calibration: str) -> NumPy:
    """Probabilities of each fold by the curve of the others, so that flexible curves do not look better than they are."""
    made = np.empty(len(good))
    for number in range(int(fold.max()) + 1):
        out = fold == number
        made[out] = _curve(scores[~out], good[~out], calibration)(scores[out])
    return made


def _cross_entropy(probabilities: NumPy, good: NumPy) -> float:
    p = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return float(-np.mean(np.where(good == 1, np.log(p), np.log(1 - p))))


@dataclass(frozen=True)
class Quality:
    """A value is the probability that a sample is good, learned from a few that somebody judged.

    Args:
        labels: A .csv, .tsv, .jsonl or .parquet file with the columns id and label (1 or 0, good or bad).
        encoder: `inputs`, `statistics` (see `modicum.measurement.Statistics`), `both` side by side, `trained` (needs
            labels of a task), or `auto`: whichever of the first three judges best in cross-validation.
        classifier: `logistic`, `forest`, or `auto` for the better of both.
        calibration: `platt`, `isotonic` or `none`.
        folds: Of the cross-validation.
    """

    labels: str = ""
    encoder: str = "auto"
    classifier: str = "auto"
    calibration: str = "platt"
    folds: int = 5

    card: ClassVar[Card] = Card(
        key="quality",
        title="Quality filter: a classifier learned from a few judged samples",
        paper="Gunasekar et al., Textbooks Are All You Need, 2023, arXiv 2306.11644",
        saves=("samples", "compute"),
        tasks=("classification", "regression", "unlabeled"),
    )

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ModicumError(f"encoder={self.encoder!r}; expected one of {ENCODERS}")
        _check(self.classifier, self.calibration)

    def needs(self) -> tuple[Measurement, ...]:
        """Features and statistics of the training samples, those that the encoder asks for."""
        from modicum.measurement.features import Features
        from modicum.measurement.statistics import Statistics

        if self.encoder == "statistics":
            return (Statistics(),)
        if self.encoder in ("auto", "both"):
            return (Features("inputs"), Statistics())
        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Probabilities; charged with the judged samples as labels."""
        from modicum.data.judging import read_judgments

        order = by_id(data.train)
        for table in (rows_of("train features", m.train, data.train) for m in measured):
            features("train features", table)
        tables = tables_of(self.encoder, [m.train[order] for m in measured])
        if not self.labels:
            raise ModicumError(
                "labels='' names no file; expected one with the columns id and label: quality(labels='judged.csv')"
            )
        given = read_judgments(os.path.expanduser(self.labels))
        ids = [str(i) for i in data.train.ids[order.numpy()].tolist()]
        at = np.array([i for i, name in enumerate(ids) if name in given], dtype=np.int64)
        if not len(at):
            some = next(iter(given))
            raise DataError(
                f"{self.labels}: none of its {len(given)} ids, such as {some!r}, is one of the training samples"
            )
        labels = np.array([given[ids[i]] >= 0.5 for i in at.tolist()]).astype(np.int64)
        with ctx.ledger.clock("choose", self.card.key, labels=len(at)) as counts:
            name, judged = best_judging(
                tables,
                at,
                labels,
                ctx.generator(self.card.key),
                classifier=self.classifier,
                calibration=self.calibration,
                folds=self.folds,
            )
            counts["extra_flops"] = 2 * self.folds * sum(part.numel() for parts in tables.values() for part in parts)
        values, ties = np.empty(len(order)), np.empty(len(order))
        values[order.numpy()], ties[order.numpy()] = judged.probabilities, -judged.scores
        classified = data.train.info.task == "classification" and data.train.targets is not None
        return Scores(
            values,
            data.train.ids,
            self.card.key,
            "value",
            "probability of being good",
            data.train.labels.numpy() if classified else None,
            ties=ties,
            note=f"{judged.classifier} on {name}, learned from {len(at)} judged samples: {judged.loss:.3f} nats on those "
            f"left out, {_cross_entropy(np.full(len(labels), labels.mean()), labels):.3f} without looking",
        )


def tables_of(encoder: str, tables: Sequence[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """The features that an encoder means, by name, from the measurements of `Quality.needs` in their order.

    Args:
        encoder: One of `ENCODERS`.
        tables: (n, d) of each measurement.

    Returns:
        By name, the tables that are tried together.

    Example:
        >>> sorted(tables_of("auto", [torch.zeros(2, 3), torch.zeros(2, 5)]))
        ['both', 'inputs', 'statistics']
    """
    if encoder == "auto":
        return {"inputs": [tables[0]], "statistics": [tables[1]], "both": [*tables]}
    return {encoder: [*tables]}
