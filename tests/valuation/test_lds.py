import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from modicum.errors import DataError
from modicum.valuation import linear_datamodeling_score
from modicum.valuation.lds import linear_datamodeling_score as same


def problem(seed=0, subsets=30, n=12, targets=4):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(targets, n)), draw.random((subsets, n)) < 0.5, draw.normal(size=(subsets, targets))


def test_equals_spearman_of_each_target():
    tau, masks, outputs = problem()
    each = [spearmanr(masks @ tau[t], outputs[:, t]).statistic for t in range(4)]
    assert linear_datamodeling_score(tau, masks, outputs) == pytest.approx(np.mean(each), abs=1e-12)
    assert same is linear_datamodeling_score


def test_ties_have_their_mean_rank():
    tau, masks, outputs = problem()
    tau, outputs = tau.round(0), outputs.round(0)
    each = [spearmanr(masks @ tau[t], outputs[:, t]).statistic for t in range(4)]
    assert linear_datamodeling_score(tau, masks, outputs) == pytest.approx(np.mean(each), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_linear_model_has_score_one(seed):
    tau, masks, _ = problem(seed)
    outputs = np.exp(masks @ tau.T + 3)  # any rising function
    assert linear_datamodeling_score(tau, masks, outputs) == pytest.approx(1)
    assert linear_datamodeling_score(-tau, masks, outputs) == pytest.approx(-1)
    assert linear_datamodeling_score(torch.from_numpy(tau), torch.from_numpy(masks), torch.from_numpy(outputs)) > 0.999


def test_constant_predictions_count_as_nothing():
    _, masks, outputs = problem()
    assert linear_datamodeling_score(np.zeros((4, 12)), masks, outputs) == 0


@pytest.mark.parametrize(
    "change, text",
    [
        ({"masks": np.ones((30, 11))}, r"masks has shape \(30, 11\); expected \(30, 12\)"),
        ({"outputs": np.ones((30, 3))}, "outputs has 3 columns but attributions has 4 targets"),
        ({"outputs": np.ones((1, 4)), "masks": np.ones((1, 12))}, "two subsets at least"),
        ({"attributions": np.full((4, 12), np.nan)}, r"attributions\[0, 0\] is nan"),
    ],
)
def test_errors_name_the_argument(change, text):
    tau, masks, outputs = problem()
    with pytest.raises(DataError, match=text):
        linear_datamodeling_score(**({"attributions": tau, "masks": masks, "outputs": outputs} | change))
