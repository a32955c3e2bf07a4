"""Features: an encoder's representation of every sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import ModicumError
from modicum.measurement.cache import cached
from modicum.models import features
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

__all__ = ["FeatureTable", "Features"]

ENCODERS = ("inputs", "trained")
TEXT_DIMENSIONS = 128


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """What `Features` measured.

    Args:
        train: (n, d) float32 representation of the training samples.
        valid: (m, d) of the validation samples.
    """

    train: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Features:
    """The representation of every training and validation sample.

    Args:
        encoder: `inputs`: the standardized inputs themselves, for text the latent semantic analysis (truncated SVD of
            TF-IDF) of the training texts; no labels are used. `trained`: the recipe's model trained on the training set
            for a share of its schedule, the input of its last linear layer.
        until: Share of the schedule that a `trained` encoder is trained for.
    """

    encoder: str = "inputs"
    until: float = 0.2

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ModicumError(f"encoder={self.encoder!r}; expected one of {ENCODERS}")

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> FeatureTable:
        """Encode, or read from the cache; charged to `ctx.ledger` as choosing."""
        description: dict[str, Any] = {
            "encoder": self.encoder,
            "train": data.train.fingerprint,
            "valid": data.valid.fingerprint,
        }
        if self.encoder == "inputs":
            if data.train.info.modality != "text":
                with ctx.ledger.clock("choose", "features"):
                    return FeatureTable(*(d.prepare(d.inputs).flatten(1).float() for d in data[:2]))
            description["seed"] = ctx.seed
            measured, ledger = cached("features", description, ctx, lambda inner: _latent_semantics(data, inner))
        else:
            description |= {"recipe": recipe, "until": self.until, "seed": ctx.seed}
            measured, ledger = cached("features", description, ctx, lambda inner: self._trained(data, recipe, inner))
        ctx.ledger.charges.extend(ledger.charges)
        return FeatureTable(measured["train"], measured["valid"])

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is."""
        return self.until if self.encoder == "trained" else 0.0

    def _trained(self, data: Splits, recipe: Recipe, ctx: Context) -> dict[str, Tensor]:
        stop_after = recipe.whole_epochs(len(data.train), self.until)
        model = fit(data.train, recipe, ctx, stop_after=stop_after, name="encoder", phase="choose").model

        def encode(dataset: Dataset) -> Tensor:
            return forward(model, dataset, ctx, function=features, phase="choose", what="features")

        return {"train": encode(data.train), "valid": encode(data.valid)}


def _latent_semantics(data: Splits, ctx: Context) -> dict[str, Tensor]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    words = len(data.train.info.vocabulary)
    with ctx.ledger.clock("choose", "features"):
        train, valid = (_word_counts(d, words) for d in data[:2])
        weigh = TfidfTransformer(sublinear_tf=True).fit(train)
        dimensions = min(TEXT_DIMENSIONS, words - 1, len(data.train) - 1)
        project = TruncatedSVD(dimensions, random_state=ctx.seed).fit(weigh.transform(train))
        # scikit-learn refuses tables without rows, as a validation split may be
        tables = [
            project.transform(weigh.transform(t)) if t.shape[0] else np.zeros((0, dimensions)) for t in (train, valid)
        ]
    return dict(zip(("train", "valid"), (torch.from_numpy(t.astype(np.float32)) for t in tables)))


def _word_counts(dataset: Dataset, words: int) -> Any:
    """(n, words) sparse counts of the tokens, padding and unknown tokens left out."""
    from scipy.sparse import csr_matrix

    tokens = dataset.inputs.numpy()
    rows, places = np.nonzero(tokens > 1)
    return csr_matrix((np.ones(len(rows), np.float32), (rows, tokens[rows, places])), shape=(len(dataset), words))
