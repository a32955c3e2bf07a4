import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import DataError
from modicum.measurement.learners import Network, Problem
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

DRAW = torch.Generator().manual_seed(0)
X, Y = torch.randn(40, 4, generator=DRAW), torch.arange(40) % 3


def batch_norm():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def problem(model="mlp(hidden=8)", classes=3, ctx=None):
    info = Info(classes=tuple("abc")) if classes else Info("regression", target_mean=2.0, target_std=3.0)
    targets = Y if classes else X[:, 0] * 3 + 2
    data = Dataset(X, targets, info=info)
    wanted = data[:9].prepare_targets().double() if not classes else Y[:9]
    recipe = Recipe(model=model, epochs=3, batch_size=8, lr=0.05)
    return Problem(
        torch.zeros(40, 0).double(), targets, torch.zeros(9, 0).double(), wanted, classes, data, data[:9], recipe, ctx
    )


MASKS = torch.stack([torch.arange(40) < 30, torch.arange(40) % 2 == 0, torch.ones(40, dtype=torch.bool)])


@pytest.mark.parametrize("model, classes", [("mlp(hidden=8)", 3), ("mlp(hidden=8)", 0), (batch_norm, 3)])
def test_each_subset_gets_the_network_that_fit_would_train(model, classes):
    ctx = Context(seed=5)
    p = problem(model, classes, ctx)
    found = Network().outputs(p, MASKS)
    assert found.dtype == torch.float64
    for row, mask in zip(found, MASKS):
        alone = fit(p.train[mask], p.recipe, Context(seed=5))
        torch.testing.assert_close(row, forward(alone.model, p.asked, Context()).double(), rtol=0, atol=2e-5)
    total = ctx.ledger.total("choose")
    assert total == ctx.ledger.total("choose")
    assert total.samples == 3 * (30 + 20 + 40) + 3 * 9
    assert total.flops > 0


def test_a_subset_has_one_value_wherever_it_stands():
    p = problem(ctx=Context(seed=1))
    found = Network(together=2).outputs(p, MASKS)
    torch.testing.assert_close(Network(together=1).outputs(p, MASKS.flip(0)).flip(0), found, rtol=0, atol=2e-5)


def test_it_needs_inputs():
    p = Problem(torch.zeros(3, 2), Y[:3], torch.zeros(1, 2), Y[:1], 3)
    with pytest.raises(DataError, match="the learner network trains on inputs, but the problem has only features"):
        Network().outputs(p, torch.ones(1, 3, dtype=torch.bool))


def test_together_is_an_integer():
    with pytest.raises(DataError, match="together=0; expected an integer >= 1"):
        Network(together=0)
