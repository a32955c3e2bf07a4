"""One set of utilities serves all semivalues: Shapley, Beta Shapley and Banzhaf from the same permutations.

    python bench/valuation/shared_semivalues.py

Each kind alone draws the same permutations as all together, so the answers must be the same, and the count of utilities too;
the times are those of all kinds from one set of utilities against each kind from its own. For Banzhaf's value the standard
error is set beside that of the estimator made for it, maximum sample reuse, from as many utilities.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write
from tmc_shapley import oracle

from modicum.valuation import data_banzhaf
from modicum.valuation.game import Estimate
from modicum.valuation.permutations import PermutationRun, carry_out

KINDS: list[Any] = ["shapley", ("beta", 16, 1), ("beta", 4, 1), ("beta", 1, 4), "banzhaf", ("banzhaf", 0.2)]


def estimates(utility: Any, kinds: list[Any], permutations: int) -> list[Estimate]:
    """Of these kinds, from the same permutations each time."""
    return carry_out(PermutationRun(utility, kinds, torch.Generator().manual_seed(0), permutations))


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=300, help="training samples")
    parser.add_argument("--valid", type=int, default=300, help="validation samples")
    parser.add_argument("--permutations", type=int, default=200, help="for one timing")
    parser.add_argument("--repeats", type=int, default=3, help="pairs")
    options = parser.parse_args()
    utility = oracle(options.train, options.valid)
    before = utility.trainings
    together = estimates(utility, KINDS, options.permutations)
    asked = utility.trainings - before
    rows: list[dict[str, Any]] = []
    for kind, shared in zip(KINDS, together):
        before = utility.trainings
        (alone,) = estimates(utility, [kind], options.permutations)
        difference = float(np.abs(alone.values - shared.values).max())
        if difference > 1e-12 or utility.trainings - before != asked:
            print(f"{kind}: the answers differ by {difference:.2g}; no time is reported", file=sys.stderr)
            return 1
        row = {"kind": str(kind), "utilities_alone": utility.trainings - before, "utilities_of_all": asked}
        row |= {"largest_difference": difference, "mean_standard_error": round(float(shared.errors.mean()), 6)}
        if kind in ("banzhaf", ("banzhaf", 0.2)):
            p = 0.5 if kind == "banzhaf" else kind[1]
            reuse = data_banzhaf(utility, torch.Generator().manual_seed(0), asked, p=p)
            row["mean_standard_error_of_sample_reuse"] = round(float(reuse.errors.mean()), 6)
        rows.append(row)
    times = compare(
        lambda: seconds_of(lambda: estimates(utility, KINDS, options.permutations)),
        lambda: seconds_of(lambda: [estimates(utility, [kind], options.permutations) for kind in KINDS]),
        options.repeats,
    )
    rows.append({"kind": f"all {len(KINDS)} kinds", "utilities_of_all": asked, **times})
    what = f"{len(KINDS)} semivalues of {options.train} digits from one set of utilities; peer: from a set for each"
    write("valuation_shared_semivalues", rows, what=what)
    return 0


if __name__ == "__main__":
    sys.exit(main())
