import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.valuation import aum


def logits_and_targets(epochs=5, n=6, c=3, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(epochs, n, c)), np.arange(n) % c


def test_hand_example_is_a_mean_not_a_sum():
    logits = np.array([[[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]], [[1.0, 1.0, 4.0], [2.0, 3.0, 0.0]]])
    np.testing.assert_allclose(aum(logits, np.array([0, 2])), [(1 - 3) / 2, (-4 - 3) / 2])


def test_a_constant_on_all_logits_changes_nothing():
    logits, targets = logits_and_targets()
    np.testing.assert_allclose(aum(logits + 7, targets), aum(logits, targets), atol=1e-12)


def test_two_classes_is_the_difference_of_logits():
    logits, _ = logits_and_targets(c=2)
    np.testing.assert_allclose(aum(logits, np.zeros(6, int)), (logits[..., 0] - logits[..., 1]).mean(0))


def test_scales_with_the_logits_unlike_probabilities():
    logits, targets = logits_and_targets()
    np.testing.assert_allclose(aum(3 * logits, targets), 3 * aum(logits, targets))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_kind_and_dtype_and_no_writes(dtype):
    logits, targets = logits_and_targets()
    tensor = torch.from_numpy(logits).to(dtype)
    before = tensor.clone()
    assert aum(tensor, torch.from_numpy(targets)).dtype == dtype
    assert torch.equal(tensor, before)


@pytest.mark.parametrize(
    "logits, targets, text",
    [
        (np.zeros((2, 3, 1)), np.zeros(3, int), "expected c >= 2 classes"),
        (np.full((2, 3, 2), np.nan), np.zeros(3, int), r"logits\[0, 0, 0\] is nan"),
        (np.zeros((3, 2)), np.zeros(3, int), r"logits has shape \(3, 2\); expected \(epochs, n, c\)"),
        (np.zeros((2, 3, 2)), np.full(3, 2), r"targets\[0\] is 2; expected 0..1"),
        (np.zeros((0, 3, 2)), np.zeros(3, int), "logits has shape"),
    ],
)
def test_errors_name_the_argument(logits, targets, text):
    with pytest.raises(DataError, match=text):
        aum(logits, targets)
