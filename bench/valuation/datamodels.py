"""LASSO of many targets on the same masks against scikit-learn's, which descends one target after another.

    python bench/valuation/datamodels.py [--models M] [--samples N] [--targets T]

The weights are compared before any time is reported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write

from modicum.valuation import datamodels

Array = np.ndarray[Any, np.dtype[Any]]


def made_up(models: int, samples: int, targets: int) -> tuple[Array, Array]:
    """Masks of halves, and margins that a tenth of the samples move."""
    draw = np.random.default_rng(0)
    masks = draw.random((models, samples)) < 0.5
    weights = draw.normal(size=(samples, targets)) * (draw.random((samples, targets)) < 0.1)
    return masks, masks @ weights + draw.normal(size=(models, targets))


def by_scikit_learn(masks: Array, outputs: Array, beta: float, tolerance: float) -> Array:
    """Coordinate descent, all targets in one call."""
    from sklearn.linear_model import Lasso

    found: Array = Lasso(alpha=beta / 2, tol=tolerance, max_iter=100_000).fit(masks.astype(float), outputs).coef_
    return found


def chosen_by_scikit_learn(masks: Array, outputs: Array) -> Array:
    """With the penalty of each target by five parts left out, over as many penalties as here."""
    from sklearn.linear_model import LassoCV

    x = masks.astype(float)
    return np.stack([LassoCV(alphas=17, eps=1e-2, cv=5).fit(x, y).coef_ for y in outputs.T])


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--targets", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    masks, outputs = made_up(options.models, options.samples, options.targets)
    size, rows = f"{options.models} models x {options.samples} samples x {options.targets} targets", []
    for beta in (0.3, 0.05):
        ours = datamodels(masks, outputs, beta=beta).weights
        difference = float(np.abs(ours - by_scikit_learn(masks, outputs, beta, 1e-13)).max())
        if difference > 1e-6:
            print(f"the weights differ by {difference:.2g} at beta={beta}; no time is reported", file=sys.stderr)
            return 1
        times = compare(
            lambda beta=beta: seconds_of(lambda: datamodels(masks, outputs, beta=beta)),
            lambda beta=beta: seconds_of(lambda: by_scikit_learn(masks, outputs, beta, 1e-13)),
            options.repeats,
        )
        rows.append({"size": size, "beta": beta, **times, "largest_difference": difference})
    error = float(np.abs(datamodels(masks, outputs).weights - chosen_by_scikit_learn(masks, outputs)).mean())
    if error > 1e-3 * outputs.std():
        print(
            f"the weights with chosen penalties differ by {error:.2g} on average; no time is reported", file=sys.stderr
        )
        return 1
    times = compare(
        lambda: seconds_of(lambda: datamodels(masks, outputs)),
        lambda: seconds_of(lambda: chosen_by_scikit_learn(masks, outputs)),
        1,
    )
    rows.append({"size": size, "beta": "chosen", **times, "mean_difference": error})
    write("valuation_datamodels", rows, what="LASSO of margins on masks; the peer is scikit-learn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
