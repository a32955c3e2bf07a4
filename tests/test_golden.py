"""The same selections and scores on every machine: indices exactly, numbers to 1e-5.

`python tests/test_golden.py` writes `golden.json` anew, for a change that is meant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import modicum
from modicum.selection import InfoBatchSampler, herding, k_center_greedy
from modicum.training.order import permutation
from modicum.valuation import aum, el2n, forgetting, knn_shapley, margin, ssp

FILE = Path(__file__).with_name("golden.json")


def golden() -> dict[str, list[Any]]:
    train, valid, _ = modicum.load("digits")
    x, y = train.prepare(train.inputs).flatten(1)[:300], train.labels[:300]
    v, w = valid.prepare(valid.inputs).flatten(1)[:60], valid.labels[:60]
    logits = (x @ x[:10].T / 64).reshape(3, 100, 10)
    p = logits.softmax(-1)
    return {
        "ids": train.ids[:20].tolist(),
        "order": permutation(50, seed=3, epoch=2).tolist(),
        "infobatch": InfoBatchSampler(30, 8, seed=1).order(0)[0].tolist(),
        "knn-shapley": knn_shapley(x, y, v, w, 5).tolist(),
        "el2n": el2n(p, y[:100]).tolist(),
        "aum": aum(logits, y[:100]).tolist(),
        "margin": margin(p[0]).tolist(),
        "forgetting": forgetting(logits.argmax(-1) == y[:100]).clamp(max=99).tolist(),
        "ssp": ssp(x, 10, seed=0).tolist(),
        "herding": torch.as_tensor(herding(x, 30)).tolist(),
        "k-center-greedy": torch.as_tensor(k_center_greedy(x, 30)).tolist(),
    }


@pytest.mark.parametrize("name", list(json.loads(FILE.read_text())) if FILE.is_file() else ["missing"])
def test_golden(name: str) -> None:
    expected, found = json.loads(FILE.read_text())[name], golden()[name]
    if isinstance(expected[0], int):
        assert found == expected
    else:
        assert found == pytest.approx(expected, abs=1e-5)


if __name__ == "__main__":
    FILE.write_text(json.dumps(golden()) + "\n")
