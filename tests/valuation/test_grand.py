import numpy as np
import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.measurement import Gradients
from modicum.measurement.per_sample import gradient_norms, last_layer_gradients, per_sample_gradients
from modicum.training.recipe import Recipe
from modicum.valuation import Grand, el2n, grand


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def samples(n=20, d=6, c=4, dtype=torch.float64):
    return torch.randn(n, d, generator=draw(), dtype=dtype), torch.randint(c, (n,), generator=draw(1))


def test_softmax_regression_is_el2n_times_the_length_of_the_input():
    x, y = samples()
    model = nn.Linear(6, 4).double()
    p = model(x).softmax(1).detach()
    expected = el2n(p, y) * (1 + x.square().sum(1)).sqrt()
    torch.testing.assert_close(gradient_norms(model, x, y), expected)
    torch.testing.assert_close(grand(per_sample_gradients(model, x, y)), expected)


def test_the_last_layer_is_el2n_times_the_length_of_its_input():
    x, y = samples()
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    h = model[:2](x).detach()
    expected = el2n(model(x).softmax(1).detach(), y) * (1 + h.square().sum(1)).sqrt()
    torch.testing.assert_close(grand(last_layer_gradients(model, x, y)), expected)
    whole = per_sample_gradients(model, x, y)[:, -24:]  # the weight and the bias of the last layer
    torch.testing.assert_close(grand(whole), expected)


def test_runs_are_averaged_and_the_kind_is_kept():
    gradients = torch.randn(3, 7, 5, generator=draw())
    found = grand(gradients)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, gradients.norm(dim=-1).mean(0))
    array = gradients.numpy()
    array.flags.writeable = False
    np.testing.assert_allclose(grand(array), found.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "gradients, text",
    [
        (np.ones(3), r"gradients has shape \(3,\); expected \(n, p\) or \(runs, n, p\)"),
        (np.full((2, 2), np.nan), r"gradients\[0, 0\] is nan"),
        ((np.ones((3, 2)), np.ones((4, 2))), r"factors of shapes \(3, 2\), \(4, 2\); expected two with the same"),
        ((np.ones((3, 2)),) * 3, "expected two"),
        ((np.ones((3, 2)),), "expected two"),
        (np.empty((0, 2)), "not empty"),
    ],
)
def test_errors_name_the_argument(gradients, text):
    with pytest.raises(DataError, match=text):
        grand(gradients)


def splits():
    x = torch.randn(40, 5, generator=draw())
    data = Dataset(x, x[:, :3].argmax(1), ids=np.arange(40)[::-1].copy(), info=Info(classes=tuple("abc")))
    return Splits(data[:30], data[30:], data[30:])


@pytest.mark.parametrize("last_layer", [False, True])
def test_the_method_reads_the_gradients_of_every_run_at_that_moment(last_layer):
    data, recipe = splits(), Recipe(model="mlp(hidden=6, layers=1)", epochs=10, batch_size=8)
    method = Grand(2, 0.3, last_layer)
    table = Gradients((0.3,), 2).measure(data, recipe, Context())
    scores = method.score(data, Context(), table)
    x, y = data.train.prepare(data.train.inputs), data.train.labels
    expected = []
    for run in (0, 1):
        gradients = per_sample_gradients(table.model(run), x, y)
        expected.append(gradients[:, -21:].norm(dim=1) if last_layer else gradients.norm(dim=1))
    np.testing.assert_allclose(scores.values, torch.stack(expected).mean(0), rtol=1e-4)
    np.testing.assert_allclose(scores.errors, torch.stack(expected).std(0) / 2**0.5, rtol=1e-3, atol=1e-6)
    assert (scores.kind, scores.order) == ("difficulty", "hardest")


def test_options():
    for wrong in ({"runs": 0}, {"until": 0.0}, {"until": 1.5}):
        with pytest.raises(ModicumError, match=f"option {next(iter(wrong))}="):
            Grand(**wrong)
    assert Grand().needs()[0].trainings() == 1.0
