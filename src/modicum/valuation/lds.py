"""The linear datamodeling score: how well the values of single samples predict what models of subsets do."""

from __future__ import annotations

import numpy as np

from modicum.arrays import NumPy, real, to_numpy
from modicum.errors import DataError

__all__ = ["linear_datamodeling_score"]


def linear_datamodeling_score(attributions: object, masks: object, outputs: object) -> float:
    """The rank correlation of what the attributions predict for models of random subsets with what those models do.

    `LDS(z) = Spearman_j( f(z; S_j), sum_{i in S_j} tau_i(z) )`, averaged over the targets z; ties have their mean rank.
    The standard is 100 or more subsets of half of the samples, f averaged over several seeds.

    Args:
        attributions: (targets, n), or (n,) for a single target: the value of each training sample for each target.
        masks: (subsets, n) which samples each model was trained on.
        outputs: (subsets, targets), or (subsets,): what each model does on each target, such as its margin.

    Returns:
        In [-1, 1]; targets whose outputs or predictions are all the same count as 0.

    Raises:
        DataError: Shapes do not fit, fewer than 2 subsets, or numbers that are not finite.

    Example:
        >>> masks = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=bool)
        >>> linear_datamodeling_score(np.array([3.0, 2.0, 1.0]), masks, np.array([5.0, 4.0, 3.0]))
        1.0

    Reference:
        Park et al., TRAK: Attributing Model Behavior at Scale, 2023, arXiv 2303.14186; Ilyas et al., Datamodels:
        Predicting Predictions from Training Data, 2022, arXiv 2202.00622.
    """
    tau = real("attributions", attributions, (1, 2), "(targets, n)")
    wanted = real("outputs", outputs, (1, 2), "(subsets, targets)")
    inside = to_numpy("masks", masks)
    tau, wanted = np.atleast_2d(tau), wanted.reshape(len(wanted), -1)
    if inside.shape != (len(wanted), tau.shape[1]) or len(wanted) < 2:
        raise DataError(
            f"masks has shape {inside.shape}; expected ({len(wanted)}, {tau.shape[1]}), two subsets at least, for the "
            "rows of outputs and the columns of attributions"
        )
    if wanted.shape[1] != len(tau):
        raise DataError(f"outputs has {wanted.shape[1]} columns but attributions has {len(tau)} targets")
    predicted = inside.astype(np.float64) @ tau.T.astype(np.float64)
    return float(_correlations(_ranks(predicted), _ranks(wanted)).mean())


def _ranks(columns: NumPy) -> NumPy:
    """Ranks down every column, ties at their mean."""
    from scipy.stats import rankdata

    ranks: NumPy = rankdata(columns, axis=0)
    return ranks


def _correlations(a: NumPy, b: NumPy) -> NumPy:
    """(targets,) Pearson correlation column by column, 0 where one is constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    found: NumPy = np.where(scale > 0, (a * b).sum(0) / np.where(scale > 0, scale, 1), 0.0)
    return found
