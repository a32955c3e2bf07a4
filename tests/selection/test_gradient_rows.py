import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.selection.gradient_rows import GradientRows, gradient_rows, target_of


def pair(n=30, c=3, d=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    e, h = (torch.randn(n, size, generator=draw, dtype=torch.float64) for size in (c, d))
    return GradientRows(e, h), GradientRows((e[:, :, None] * h[:, None]).flatten(1))


def test_factors_give_what_the_gradients_give():
    factors, whole = pair()
    at, weights = torch.tensor([4, 0, 7]), torch.rand(30, dtype=torch.float64)
    direction = torch.randn(3, 5, dtype=torch.float64)
    assert torch.allclose(factors.squares(), whole.squares())
    assert torch.allclose(factors.gram(at), whole.gram(at))
    assert torch.allclose(factors.column(4), whole.gram(at)[:, 0])
    assert torch.allclose(factors.combined().flatten(), whole.combined())
    assert torch.allclose(factors.combined(weights).flatten(), whole.combined(weights))
    assert torch.allclose(factors.products(direction), whole.products(direction.flatten()))
    assert (factors.columns, factors.size, whole.columns, whole.size) == (8, 15, 15, 15)


def test_distances_do_not_depend_on_the_blocks(monkeypatch):
    factors, whole = pair()
    at = torch.tensor([4, 0, 29])
    expected = torch.cdist(whole.left, whole.left[at])
    for block in (1, 10, 1000):
        monkeypatch.setattr("modicum.selection.gradient_rows.BLOCK", block)
        for rows in (factors, whole):
            parts = list(rows.distances(rows.squares(), at))
            assert [here.start for here, _ in parts] == list(range(0, 30, max(1, block // 3)))
            found = torch.cat([distances for _, distances in parts])
            assert torch.allclose(found, expected, atol=1e-7)
            assert found[at, torch.arange(3)].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "gradients, text",
    [
        (np.zeros(3), r"gradients has shape \(3,\)"),
        (np.empty((0, 2)), "gradients has shape"),
        (np.full((2, 2), np.nan), r"gradients\[0, 0\] is nan"),
        ((np.zeros((3, 2)),), "gradients has 1 parts; expected two factors"),
        ((np.zeros((3, 2)), np.zeros((2, 2))), r"factors of shapes \(3, 2\) and \(2, 2\); expected as many rows"),
        ((np.zeros((3, 2)), np.full((3, 2), np.inf)), r"gradients\[1\]\[0, 0\] is inf"),
        (
            torch.tensor([[1.0], [1e25]]),
            r"gradients\[1\] is too long to be squared in torch.float32; scale the gradients",
        ),
        (
            (np.full((2, 1), 1e100), np.full((2, 1), 1e100)),
            r"gradients\[0\] is too long to be squared in torch.float64",
        ),
    ],
)
def test_errors_name_the_argument(gradients, text):
    with pytest.raises(DataError, match=text):
        gradient_rows("gradients", gradients)


def test_a_target_has_the_shape_of_one_gradient():
    factors, whole = pair()
    assert torch.equal(target_of(factors, None), factors.combined())
    assert target_of(whole, np.ones(15)).dtype == torch.float64
    with pytest.raises(DataError, match=r"target has shape \(3, 4\); expected \(3, 5\), like one gradient"):
        target_of(factors, np.ones((3, 4)))
    with pytest.raises(DataError, match="target"):
        target_of(whole, np.ones((3, 5)))
