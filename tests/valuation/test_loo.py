import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError
from modicum.measurement import FeatureTable, Utilities
from modicum.training.recipe import Recipe
from modicum.valuation import Loo, knn_loo


def splits(task="classification", sources=None):
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.normal(size=(50, 3))).float()
    y = (x[:, 0] + torch.from_numpy(draw.normal(size=50)).float() > 0).long()
    info = Info(classes=("a", "b"), sources=("s", "t", "u") if sources is not None else ())
    if task == "regression":
        y, info = 5 * x[:, 0] + x[:, 1] ** 2, Info("regression", target_mean=1.0, target_std=5.0)
    train = Dataset(x[:30], y[:30], ids=draw.permutation(30), sources=sources, info=info)
    valid = Dataset(x[30:], y[30:], info=info)
    return Splits(train, valid, valid), FeatureTable(x[:30], x[30:])


def ridge_loss(x, y, v, z, l2=1.0):
    x, v = (np.hstack([a, np.ones((len(a), 1))]) for a in (x, v))
    penalty = np.diag([l2] * (x.shape[1] - 1) + [0])
    return ((z - v @ np.linalg.solve(x.T @ x + penalty, x.T @ y)) ** 2).reshape(len(v), -1).sum(1).mean()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_ridge_equals_refits(task):
    data, table = splits(task)
    x, v = table.train.double().numpy(), table.valid.double().numpy()
    y, z = (d.prepare_targets().double().numpy() if task == "regression" else np.eye(2)[d.targets] for d in data[:2])
    full = ridge_loss(x, y, v, z)
    expected = [ridge_loss(np.delete(x, i, 0), np.delete(y, i, 0), v, z) - full for i in range(30)]
    scores = Loo().score(data, Context(), table)
    np.testing.assert_allclose(scores.values, expected, atol=1e-12)
    assert scores.kind == "value"
    assert scores.unit == "validation squared error"


def test_knn_is_the_closed_form():
    data, table = splits()
    scores = Loo(learner="knn", k=3).score(data, Context(), table)
    expected = knn_loo(table.train.double(), data.train.targets, table.valid, data.valid.targets, 3)
    np.testing.assert_allclose(scores.values, expected, atol=1e-15)
    assert scores.unit == "validation accuracy"


def test_any_learner_by_training_without_each_sample():
    data, _ = splits()
    method = Loo(learner="ridge(l2=0.5)")
    (need,) = method.needs()
    assert isinstance(need, Utilities)
    ctx = Context()
    utility = need.measure(data, Recipe(), ctx)
    scores = method.score(data, ctx, utility)
    order = np.argsort(data.train.ids)
    for i in (0, 7, 29):
        mask = torch.ones(1, 30, dtype=torch.bool)
        mask[0, i] = False
        assert scores.values[order[i]] == pytest.approx(utility.full - float(utility.values(mask)))


def test_whole_sources():
    sources = torch.arange(30) % 3
    data, table = splits(sources=sources)
    x, v = table.train.double().numpy(), table.valid.double().numpy()
    y, z = np.eye(2)[data.train.targets], np.eye(2)[data.valid.targets]
    full = ridge_loss(x, y, v, z)
    scores = Loo(groups=True).score(data, Context(), table)
    for s in range(3):
        out = sources.numpy() != s
        worth = ridge_loss(x[out], y[out], v, z) - full
        np.testing.assert_allclose(scores.values[~out], worth / 10, atol=1e-12)
    asked = Loo("ridge(l2=1.0)", groups=True)
    by_training = asked.score(data, Context(), asked.needs()[0].measure(data, Recipe(), Context()))
    assert len(np.unique(by_training.values)) <= 3


def test_errors():
    data, table = splits()
    with pytest.raises(DataError, match="groups=True needs the column `sources`"):
        Loo(groups=True).score(data, Context(), table)
    one, _ = splits(sources=torch.zeros(30, dtype=torch.int64))
    with pytest.raises(DataError, match="all samples are of one source; expected at least 2"):
        Loo(groups=True).score(one, Context(), table)
    numbers, _ = splits("regression")
    with pytest.raises(DataError, match="learner='knn' takes votes and needs classes"):
        Loo(learner="knn").score(numbers, Context(), table)
