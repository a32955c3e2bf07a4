import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modicum
from modicum.context import generator
from modicum.dataset import Dataset
from modicum.distillation import whitened, zca
from modicum.errors import DataError, ModicumError


def rows(n: int = 300, d: int = 6) -> torch.Tensor:
    mixing = torch.randn(d, d, generator=generator(0, "mixing"))
    return torch.randn(n, d, generator=generator(0, "rows")) @ mixing + 2


@settings(max_examples=15, deadline=None)
@given(eps=st.floats(1e-4, 1.0))
def test_the_covariance_is_s_over_s_plus_eps(eps):
    x = rows()
    fitted = zca(x, eps)
    values = torch.linalg.eigvalsh(x.double().T.cov())
    found = torch.linalg.eigvalsh(fitted.whiten(x).double().T.cov())
    torch.testing.assert_close(found, (values / (values + eps)).sort().values, rtol=1e-3, atol=1e-4)


def test_forward_and_back_is_the_identity():
    x = (torch.rand(50, 3, 4, 4, generator=generator(0, "x")) * 255).to(torch.uint8)
    fitted = zca(x)
    assert fitted.scale == 255
    torch.testing.assert_close(fitted.undo(fitted.whiten(x)), x.float(), rtol=0, atol=2e-3)
    torch.testing.assert_close(fitted.forward @ fitted.inverse, torch.eye(48), rtol=0, atol=1e-4)


def test_the_whitening_is_that_of_least_change():
    """ZCA is the symmetric one: the whitened numbers belong to the same pixels."""
    fitted = zca(rows())
    torch.testing.assert_close(fitted.forward, fitted.forward.T, rtol=0, atol=1e-5)
    assert bool((torch.linalg.eigvalsh(fitted.forward) > 0).all())


def test_only_the_training_split_is_looked_at():
    data = modicum.load("digits")
    first, _ = whitened(data)
    second, _ = whitened(data._replace(test=data.test[:5]))
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert torch.equal(first.test.inputs[:5], second.test.inputs)
    assert first.train.info.mean == ()
    assert first.train.prepare(first.train.inputs).equal(first.train.inputs)


@pytest.mark.parametrize(
    "images, eps, text",
    [
        (torch.rand(5, 2), 0.0, "eps=0.0; expected a number > 0"),
        (torch.rand(1, 2), 0.1, r"images is \(1, 2\); expected \(n, \*shape\) with n >= 2"),
        (torch.full((3, 2), torch.nan), 0.1, "images are not finite"),
    ],
)
def test_bad_input(images, eps, text):
    with pytest.raises((DataError, ModicumError), match=text):
        zca(images, eps)


def test_inputs_of_another_size():
    with pytest.raises(DataError, match="inputs have 5 numbers each; expected 6"):
        zca(rows()).apply(Dataset(torch.rand(3, 5)))
