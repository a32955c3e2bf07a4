"""Data Shapley by permutations against pyDVL, which lives in an environment of its own because it needs numpy < 2.

    python bench/valuation/tmc_shapley.py --peer-python PYTHON

Both get the same standardized digits and the same learner, ridge regression on classes coded as 1 and -1. Before any time
is reported: the same subsets are worth the same, to the bit; the values over the peer's own permutations are the same; and
the values over other permutations differ by no more than their standard errors. The second row sets the same time of ours
against the peer with its usual learner, logistic regression, trained anew for every subset.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write

from modicum.measurement.learners import Problem, Ridge
from modicum.measurement.utilities import Utility
from modicum.valuation import semivalues_from_permutations, tmc_shapley

SEED = 7  # of the peer's permutations


def oracle(n: int, m: int) -> Utility:
    """The worth of subsets of n digits, on m others."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))[: n + m]
    images, labels = images[order], labels[order]
    mean, std = images[:n].mean(0), images[:n].std(0)
    x, y = torch.from_numpy((images - mean) / np.where(std > 0, std, 1)), torch.from_numpy(labels.astype(np.int64))
    return Utility(Problem(x[:n], y[:n], x[n:], y[n:], 10), Ridge())


def differences(utility: Utility, masks: torch.Tensor, peer: Any, permutations: int) -> dict[str, float]:
    """How far the answers are apart."""
    n = utility.players
    theirs = np.random.default_rng(SEED)  # as the peer draws them
    orders = torch.from_numpy(np.stack([theirs.permutation(n) for _ in range(permutations)]))
    values, _ = utility.prefixes(orders)
    same = semivalues_from_permutations(orders, values, ["shapley"])["shapley"].numpy()
    draw = torch.Generator().manual_seed(0)
    own = tmc_shapley(utility, draw, 2000, truncation="none", antithetic=False, stop="budget")
    apart = (own.values - peer["values"]) / (own.errors * np.sqrt(1 + own.samples / permutations))
    return {
        "utilities_that_differ": int((utility.values(masks).numpy() != peer["worth"]).sum()),
        "largest_difference_same_permutations": float(np.abs(same - peer["values"]).max()),
        "other_permutations_mean_square_in_standard_errors": round(float((apart**2).mean()), 3),
        "other_permutations_largest_in_standard_errors": round(float(np.abs(apart).max()), 2),
    }


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    peer_python = Path(__file__).resolve().parents[2] / ".venv-peers" / "bin" / "python"
    parser.add_argument("--peer-python", default=str(peer_python), help="python of an environment with pyDVL")
    parser.add_argument("--train", type=int, default=300, help="training samples")
    parser.add_argument("--valid", type=int, default=300, help="validation samples")
    parser.add_argument("--permutations", type=int, default=500, help="of ours, for one timing")
    parser.add_argument("--peer-permutations", type=int, default=20, help="of the peer, for one timing")
    parser.add_argument("--repeats", type=int, default=3, help="pairs for each row")
    options = parser.parse_args()
    utility = oracle(options.train, options.valid)
    masks = (
        torch.rand(200, options.train, generator=torch.Generator().manual_seed(1))
        < torch.linspace(0.02, 1, 200)[:, None]
    )
    problem, rows, versions = utility.problem, [], {}
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "problem.npz"), Path(folder, "answer.npz")
        arrays = {"train_x": problem.features, "train_y": problem.targets, "valid_x": problem.queries}
        arrays |= {"valid_y": problem.wanted, "masks": masks}
        np.savez(given, empty=utility.empty, **{name: a.numpy() for name, a in arrays.items()})

        def ours() -> float:
            draw = torch.Generator().manual_seed(0)
            return (
                seconds_of(lambda: tmc_shapley(utility, draw, options.permutations, truncation="none", stop="budget"))
                / options.permutations
            )

        for learner, most in (
            ("ridge", options.peer_permutations),
            ("logistic", max(1, options.peer_permutations // 10)),
        ):

            def peer(learner: str = learner, most: int = most) -> float:
                script = Path(__file__).resolve().parents[1] / "peers" / "pydvl_tmc_shapley.py"
                command = [options.peer_python, str(script), str(given), str(answer), learner, str(most), str(SEED)]
                out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                versions.update(out)
                return float(versions.pop("seconds")) / most

            found: dict[str, float] = {}
            if learner == "ridge":
                peer()
                with np.load(answer) as made:
                    found = differences(utility, masks, made, most)
                wrong = found["utilities_that_differ"] > 0 or found["largest_difference_same_permutations"] > 1e-12
                far = found["other_permutations_mean_square_in_standard_errors"]
                if wrong or not math.isfinite(far) or far > 1.5:
                    print(f"the answers differ: {found}; no time is reported", file=sys.stderr)
                    return 1
            times = compare(ours, peer, options.repeats)
            size = f"{options.train} x {options.valid} x {problem.features.shape[1]}"
            rows.append({"size": size, "learner": "ridge", "peer_learner": learner, **times, **found})
    what = "seconds a permutation of Data Shapley on digits, without truncation; training x validation x columns"
    write("valuation_tmc_shapley", rows, what=what, peer=versions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
