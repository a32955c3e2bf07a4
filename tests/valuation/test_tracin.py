import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.measurement.per_sample import last_layer_gradients, per_sample_gradients
from modicum.training.recipe import Recipe
from modicum.valuation import Tracin, tracin, tracin_fast, tracin_sketch

RECIPE = Recipe(model="mlp(hidden=6, layers=1)", epochs=3, batch_size=8, lr=0.05)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def descent(rate, steps=20):
    """Full-batch gradient descent on a quadratic: the decrease of the validation loss, and the sum of all values."""
    n, m, p = 12, 5, 4
    rows, wanted = numbers(n, p), numbers(n, seed=1)
    valid_rows, valid_wanted = numbers(m, p, seed=2), numbers(m, seed=3)
    theta, train, valid, losses = torch.zeros(p, dtype=torch.float64), [], [], []
    for _ in range(steps):
        train.append((rows @ theta - wanted)[:, None] * rows)
        valid.append((valid_rows @ theta - valid_wanted)[:, None] * valid_rows)
        losses.append((valid_rows @ theta - valid_wanted).square().mean() / 2)
        theta = theta - rate * train[-1].mean(0)
    losses.append((valid_rows @ theta - valid_wanted).square().mean() / 2)
    # in a full batch each sample has the rate over n
    values = tracin(torch.stack(train), torch.stack(valid), torch.full((steps,), rate / n, dtype=torch.float64))
    return float(losses[0] - losses[-1]), float(values.sum())


def test_the_values_of_all_steps_add_up_to_the_decrease_of_the_loss():
    gaps = []
    for rate in (1e-3, 5e-4, 2.5e-4):
        decrease, total = descent(rate)
        assert total == pytest.approx(decrease, rel=30 * rate)
        gaps.append(abs(decrease - total))
    assert [gaps[0] / gaps[1], gaps[1] / gaps[2]] == pytest.approx([4, 4], rel=0.05)


def test_the_sum_is_that_of_the_pairs():
    g, v, eta = numbers(3, 7, 5), numbers(3, 4, 5, seed=1), torch.tensor([0.1, 0.0, 2.0])
    pairs = torch.stack([torch.stack([(eta * (g[:, i] * v[:, t]).sum(1)).sum() for i in range(7)]) for t in range(4)])
    torch.testing.assert_close(tracin(g, v, eta, per_target=True), pairs)
    torch.testing.assert_close(tracin(g, v, eta), pairs.mean(0))
    own = torch.stack([(eta * g[:, i].square().sum(1)).sum() for i in range(7)])
    torch.testing.assert_close(tracin(g, None, eta), own)
    assert isinstance(tracin(g.numpy(), v.numpy(), eta.numpy()), np.ndarray)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 6), m=st.integers(1, 5), c=st.integers(2, 4), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_fast_is_tracin_on_the_products_of_the_factors(n, m, c, d, seed):
    e, h, f, w = (
        numbers(2, n, c, seed=seed),
        numbers(2, n, d, seed=seed + 1),
        numbers(2, m, c),
        numbers(2, m, d, seed=5),
    )
    eta = torch.tensor([0.5, 0.1])
    g, v = ((a[..., :, None] * b[..., None, :]).flatten(2) for a, b in ((e, h), (f, w)))
    torch.testing.assert_close(tracin_fast((e, h), (f, w), eta), tracin(g, v, eta))
    torch.testing.assert_close(tracin_fast((e, h), None, eta), tracin(g, None, eta))
    torch.testing.assert_close(tracin_fast((e, h), (f, w), eta, per_target=True), tracin(g, v, eta, per_target=True))


def test_fast_is_that_of_the_last_layer_by_autograd():
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double(),
        numbers(9, 4),
        torch.arange(9) % 3,
    )
    whole = per_sample_gradients(model, x, y)[:, -27:]
    factors = tuple(f[None] for f in last_layer_gradients(model, x, y))
    one = torch.ones(1, dtype=torch.float64)
    found = tracin_fast(factors, factors, one, per_target=True)
    torch.testing.assert_close(found, tracin(whole[None], whole[None], one, per_target=True), rtol=1e-10, atol=1e-12)


def test_sketch_is_unbiased():
    e, h = numbers(5, 10), numbers(5, 30, seed=1)
    exact = (e @ e.T) * (h @ h.T)
    grams = torch.stack([z @ z.T for z in (tracin_sketch(e, h, 64, seed) for seed in range(200))])
    deviation = grams.std(0) / 200**0.5
    assert bool(((grams.mean(0) - exact).abs() < 3.5 * deviation).all())
    assert grams[0].shape == (5, 5)


def test_sketch_keeps_short_factors_whole():
    e, h = numbers(5, 3), numbers(5, 4, seed=1)
    z = tracin_sketch(e, h, 100)
    assert z.shape == (5, 12)
    torch.testing.assert_close(z @ z.T, (e @ e.T) * (h @ h.T))
    assert tracin_sketch(e, numbers(5, 400), 100).shape == (5, 99)
    assert torch.equal(tracin_sketch(e, h, 4, 1), tracin_sketch(e, h, 4, 1))


G, ETA = np.ones((2, 3, 4)), np.ones(2)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: tracin(np.ones((0, 3, 4)), None, np.ones(0)), r"train_gradients has shape \(0, 3, 4\)"),
        (lambda: tracin(G, None, np.ones(3)), "rates has 3 entries for 2 checkpoints"),
        (lambda: tracin(G, None, np.array([0.1, -0.1])), r"rates\[1\] is -0.1; expected learning rates >= 0"),
        (lambda: tracin(G, None, np.array([0.1, np.nan])), r"rates\[1\] is nan"),
        (lambda: tracin(G, np.ones((2, 3, 5)), ETA), r"valid_gradients has shape \(2, 3, 5\); expected \(2, m, 4\)"),
        (lambda: tracin(G, np.ones((1, 3, 4)), ETA), r"valid_gradients has shape \(1, 3, 4\)"),
        (lambda: tracin(G * np.nan, None, ETA), r"train_gradients\[0, 0, 0\] is nan"),
        (lambda: tracin_fast((G, np.ones((2, 5, 4))), None, ETA), "as many rows in both"),
        (lambda: tracin_fast((G, G), (G, np.ones((2, 3, 9))), ETA), r"valid_factors\[1\] has shape"),
        (lambda: tracin_sketch(np.ones((3, 2)), np.ones((4, 2)), 4), "errors has 3 rows but features has 4"),
        (lambda: tracin_sketch(np.ones((3, 2)), np.ones((3, 2)), 0), "dimensions=0"),
        (lambda: Tracin(layers="first"), "layers='first'; expected one of"),
        (lambda: Tracin(against="test"), "against='test'; expected one of"),
        (lambda: Tracin(checkpoints=0), "checkpoints=0; expected an integer >= 1"),
    ],
)
def test_errors_name_what_is_wrong(make, text):
    with pytest.raises(ModicumError, match=text):
        make()


def splits():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=draw), torch.randint(3, (60,), generator=draw)
    info = Info(classes=tuple("abc"))
    train = Dataset(x[:40], y[:40], ids=np.random.default_rng(0).permutation(40), info=info)
    return Splits(train, Dataset(x[40:], y[40:], info=info), Dataset(x[40:], y[40:], info=info))


@pytest.mark.parametrize("against", ["valid", "self"])
@pytest.mark.parametrize("layers", ["all", "last"])
def test_the_method_is_the_mathematics(layers, against):
    data, method, ctx = splits(), Tracin(checkpoints=3, layers=layers, against=against), Context()
    (table,) = (need.measure(data, RECIPE, ctx) for need in method.needs())
    found = method.score(data, ctx, table)
    assert table.checkpoints == 3
    train, valid = (
        torch.stack([table.gradients(part, 0, k, layers=layers) for k in range(3)]) for part in ("train", "valid")
    )
    expected = tracin(train, valid if against == "valid" else None, table.rates)
    np.testing.assert_allclose(found.values[table.positions(data.train)], expected.numpy(), rtol=1e-4, atol=1e-6)
    assert (found.kind, found.order) == (("value", "hardest") if against == "valid" else ("difficulty", "easiest"))
    assert ctx.ledger.total("choose").extra_flops > 0
    assert found.errors is None


def test_runs_are_averaged():
    data, method, ctx = splits(), Tracin(checkpoints=2, runs=3), Context()
    scores = method.score(data, ctx, method.needs()[0].measure(data, RECIPE, ctx))
    assert (scores.errors > 0).all()


def test_other_samples_than_those_measured():
    data, method, ctx = splits(), Tracin(checkpoints=2), Context()
    table = method.needs()[0].measure(data, RECIPE, ctx)
    with pytest.raises(DataError, match="gradients are of 40 samples with other ids"):
        method.score(data._replace(train=data.train[:30]), ctx, table)
