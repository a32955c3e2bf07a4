"""Leave-one-out: what a learner loses when a sample, or a whole source, is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.arrays import NumPy, features
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Scores
from modicum.valuation.knn_loo import knn_loo_and_error
from modicum.valuation.ridge_loo import ridge_group_loo, ridge_loo

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features
    from modicum.measurement.utilities import Utilities

__all__ = ["Loo"]

TOGETHER = 64  # subsets that are asked about at once


@dataclass(frozen=True)
class Loo:
    """`v(D) - v(D - i)`: weaker than Shapley values, because a stable learner hardly misses one sample.

    `ridge` and `knn` are exact in closed form, from one fit. For `ridge` the utility is the negative mean squared error on
    the validation samples, of one-hot targets for classes (least squares, an intercept that is not penalized, the
    penalty on the sum); for `knn` it is the accuracy of the votes, as in `knn_shapley`. Any other learner is trained
    once without each sample, and its utility is that of `modicum.measurement.Utilities`: accuracy, or the negative
    mean squared error.

    Args:
        learner: `ridge`, `knn`, or a learner of `Utilities`, with options or without.
        l2: Penalty of `ridge` on the squared coefficients, which does not change when a sample goes; > 0 makes the
            solution unique.
        k: Neighbors that vote, of `knn`.
        groups: Whether whole sources are taken away (the data need a column of sources); a sample is then worth an equal
            share of its source.
        encoder: Whose features (see `modicum.measurement.Features`).

    Reference:
        Cook, Weisberg, Residuals and Influence in Regression, 1982. Allen, The Relationship between Variable Selection and
        Data Augmentation and a Method for Prediction, 1974.
    """

    learner: str = "ridge"
    l2: float = 1.0
    k: int = 5
    groups: bool = False
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="loo",
        title="What a learner loses without each sample",
        paper="Cook, Weisberg, Residuals and Influence in Regression, 1982; Allen, The Relationship between Variable "
        "Selection and Data Augmentation and a Method for Prediction, 1974",
        saves=("samples",),
        tasks=("classification", "regression"),
    )

    def needs(self) -> tuple[Features | Utilities]:
        """Features for the closed forms, an oracle for other learners."""
        from modicum.measurement.features import Features

        if self._closed:
            return (Features(self.encoder),)
        from modicum.measurement.utilities import Utilities

        return (Utilities(f"knn(k={self.k})" if self.learner == "knn" else self.learner, self.encoder),)

    @property
    def _closed(self) -> bool:
        return self.learner == "ridge" or (self.learner == "knn" and not self.groups)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values of samples; those of `knn` with standard errors over the validation samples."""
        task = data.train.info.task
        order = by_id(data.train)
        labels = None if task == "regression" else labels_of("train", data.train, classes=2)
        players = self._players(data, order)
        unit, errors = ("validation squared error" if task == "regression" else "validation accuracy"), None
        values = np.empty(len(order))
        if not self._closed:
            values[order] = self._retrained(measured[0], players, ctx)
        else:
            near = features("train features", rows_of("train features", measured[0].train, data.train)[order])
            query = features("valid features", rows_of("valid features", measured[0].valid, data.valid))
            n, d = near.shape
            m = len(query)
            with ctx.ledger.clock("choose", self.card.key) as counts:
                if self.learner == "knn":
                    if labels is None:
                        raise DataError(
                            "learner='knn' takes votes and needs classes; use learner='ridge' for regression"
                        )
                    counts["extra_flops"] = 2 * n * m * d + 2 * (n + m) * d
                    found, spread = knn_loo_and_error(
                        near, labels[order].numpy(), query, labels_of("valid", data.valid).numpy(), self.k
                    )
                    values[order] = found
                    if spread is not None:
                        errors = np.empty(n)
                        errors[order] = spread
                else:
                    y, wanted = self._targets(data, order)
                    unit = "validation squared error"
                    width = min(n, d) + 1
                    counts["extra_flops"] = 2 * (2 * n + m) * width**2 + 2 * width**3
                    values[order] = self._ridge(near, y, query, wanted, players)
        given = None if labels is None else labels.numpy()
        return Scores(values, data.train.ids, self.card.key, "value", unit, labels=given, errors=errors)

    def _ridge(self, near: NumPy, y: NumPy, query: NumPy, wanted: NumPy, players: NumPy | None) -> NumPy:
        near = near.astype(np.float64)  # results come in the dtype of the features
        if players is None:
            found: NumPy = ridge_loo(
                near, y, self.l2, intercept=True, valid_features=query, valid_targets=wanted
            ).values
            return found
        worth = ridge_group_loo(near, y, self.l2, players, query, wanted, intercept=True)
        shared: NumPy = (worth / np.bincount(players))[players]
        return shared

    def _targets(self, data: Splits, order: torch.Tensor) -> tuple[NumPy, NumPy]:
        if data.train.info.task == "regression":
            y, wanted = (d.prepare_targets().double().flatten().numpy() for d in data[:2])
            return y[order], wanted
        labels, asked = labels_of("train", data.train)[order].numpy(), labels_of("valid", data.valid).numpy()
        coded = np.eye(max(labels.max(), asked.max()) + 1)
        return coded[labels], coded[asked]

    def _players(self, data: Splits, order: torch.Tensor) -> NumPy | None:
        if not self.groups:
            return None
        if data.train.sources is None:
            raise DataError("groups=True needs the column `sources`; `modicum.data.concatenate` makes one")
        present, players = np.unique(data.train.sources[order].numpy(), return_inverse=True)
        if len(present) < 2:
            raise DataError("groups=True: all samples are of one source; expected at least 2")
        return np.asarray(players).reshape(-1)

    def _retrained(self, utility: Any, players: NumPy | None, ctx: Context) -> NumPy:
        asked = utility if players is None else utility.grouped(torch.from_numpy(players))
        n, lost = asked.players, []
        with asked.charged(ctx, self.card.key), ctx.progress(self.card.key, n) as done:
            for start in range(0, n, TOGETHER):
                out = torch.arange(start, min(start + TOGETHER, n))
                masks = torch.ones(len(out), n, dtype=torch.bool)
                masks[torch.arange(len(out)), out] = False
                lost.append(asked.full - asked.values(masks))
                done(start + len(out))
        worth: NumPy = torch.cat(lost).numpy()
        return worth if players is None else (worth / np.bincount(players))[players]
