import math

import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.valuation import entropy, least_confidence, margin

ALL = (margin, entropy, least_confidence)


def test_two_classes_give_one_ranking():
    p = np.random.default_rng(0).random(50)
    probabilities = np.stack([p, 1 - p], 1)
    rankings = [np.argsort(f(probabilities), kind="stable").tolist() for f in ALL]
    assert rankings[0] == rankings[1] == rankings[2]


@pytest.mark.parametrize("c", [2, 3, 10])
def test_uniform_gives_the_maxima(c):
    uniform = np.full((1, c), 1 / c)
    assert margin(uniform)[0] == pytest.approx(1)
    assert least_confidence(uniform)[0] == pytest.approx(1 - 1 / c)
    assert entropy(uniform)[0] == pytest.approx(math.log(c))
    assert entropy(uniform, normalize=True)[0] == pytest.approx(1)


@pytest.mark.parametrize("score", ALL)
def test_sure_is_zero_and_runs_are_averaged(score):
    sure = torch.eye(3)
    assert score(sure).tolist() == [0, 0, 0]
    p = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    torch.testing.assert_close(score(p), torch.stack([score(run) for run in p]).mean(0))


@pytest.mark.parametrize("score", ALL)
def test_dtype_and_errors(score):
    assert score(torch.full((2, 2), 0.5, dtype=torch.float64)).dtype == torch.float64
    assert score(np.full((2, 2), 0.5, np.float32)).dtype == np.float32
    for bad, text in (
        (np.ones((2, 2)), "probabilities row 0 sums to 2"),
        (np.ones((2, 1)), "c >= 2"),
        (np.full((2, 2), np.nan), r"probabilities\[0, 0\] is nan"),
        (np.empty((0, 2)), "not empty"),
    ):
        with pytest.raises(DataError, match=text):
            score(bad)
