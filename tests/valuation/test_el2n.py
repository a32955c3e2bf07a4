import math

import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.valuation import el2n


def softmax(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).softmax(-1)


def test_equals_the_norm_and_the_mean_over_runs():
    probabilities, targets = softmax(4, 6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    by_hand = torch.stack([(p - torch.eye(3, dtype=p.dtype)[targets]).norm(dim=1) for p in probabilities]).mean(0)
    torch.testing.assert_close(el2n(probabilities, targets), by_hand)
    torch.testing.assert_close(el2n(probabilities[0], targets), el2n(probabilities[:1], targets))


def test_range():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(el2n(p, np.array([0, 0])), [0, math.sqrt(2)])


def test_equals_the_gradient_of_the_loss_for_the_logits():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([0, 1, 2, 3, 0])
    torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    torch.testing.assert_close(el2n(logits.detach().softmax(1), targets), logits.grad.norm(dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_kind_and_dtype_and_no_writes(dtype):
    p, y = softmax(6, 3, dtype=dtype), torch.arange(6) % 3
    before = p.clone()
    assert el2n(p, y).dtype == dtype
    assert torch.equal(p, before)
    array = p.numpy()
    array.flags.writeable = False
    result = el2n(array, y.numpy())
    assert isinstance(result, np.ndarray)
    assert np.array_equal(result, el2n(p, y).numpy())


@pytest.mark.parametrize(
    "p, y, text",
    [
        (np.ones((3, 2)), np.zeros(3, int), "probabilities row 0 sums to 2"),
        (np.array([[1.5, -0.5]]), np.zeros(1, int), "least entry -0.5"),
        (np.ones((3, 1)), np.zeros(3, int), "c >= 2 classes"),
        (np.full((3, 2), np.nan), np.zeros(3, int), r"probabilities\[0, 0\] is nan"),
        (np.full((3, 2), 0.5), np.full(3, 2), r"targets\[0\] is 2; expected 0..1"),
        (np.full((3, 2), 0.5), np.zeros(4, int), r"targets has shape \(4,\)"),
        (np.empty((0, 2)), np.zeros(0, int), "probabilities has shape"),
        (np.zeros(3), np.zeros(3, int), r"expected \(n, c\) or \(runs, n, c\)"),
    ],
)
def test_errors_name_the_argument(p, y, text):
    with pytest.raises(DataError, match=text):
        el2n(p, y)
