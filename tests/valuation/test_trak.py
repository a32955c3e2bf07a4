import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.measurement.per_sample import log_odds, per_sample_gradients
from modicum.measurement.projection import project
from modicum.models.simple import Linear
from modicum.training.recipe import Recipe
from modicum.valuation import Trak, trak

RECIPE = Recipe(model="mlp(hidden=6, layers=1)", epochs=3, batch_size=8, lr=0.05)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax_model(n=700, m=20, d=64, c=10):
    torch.manual_seed(0)
    model = Linear((d,), c).double()
    x, y = numbers(n + m, d), torch.randint(c, (n + m,), generator=torch.Generator().manual_seed(1))
    gradients = per_sample_gradients(model, x, y, log_odds)
    errors = 1 - model(x[:n]).softmax(1).gather(1, y[:n, None])[:, 0].detach()
    return gradients[:n], gradients[n:], errors, (model, x, y)


def test_without_projection_it_is_the_dense_formula_by_autograd():
    n = 40
    torch.manual_seed(0)
    model, x, y = Linear((3,), 2).double(), numbers(n + 5, 3), torch.arange(n + 5) % 2
    parameters = list(model.parameters())

    def margin(i):
        p = model(x[i : i + 1]).softmax(1)[0, y[i]]
        return (p / (1 - p)).log()

    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(margin(i), parameters)]) for i in range(n + 5)]
    phi = torch.stack(rows)[
        :, [0, 1, 2, 6]
    ]  # with two classes the margin is z_1 - z_0: the other half is minus this one
    q = torch.stack([1 - model(x[i : i + 1]).softmax(1)[0, y[i]] for i in range(n)]).detach()
    dense = phi[n:] @ torch.linalg.inv(phi[:n].T @ phi[:n]) @ phi[:n].T @ torch.diag(q)
    ours = per_sample_gradients(model, x, y, log_odds)[:, [0, 1, 2, 6]]
    found = trak(ours[None, :n], ours[None, n:], q[None], l2=0.0, per_target=True)
    torch.testing.assert_close(found, dense, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(trak(ours[None, :n], ours[None, n:], q[None], l2=0.0), dense.mean(0))


@pytest.mark.parametrize("kind", ["count-sketch", "rademacher"])
def test_projections_converge_to_the_whole(kind):
    train, valid, errors, _ = softmax_model()
    p = train.shape[1]
    assert p == 650
    exact = trak(train[None], valid[None], errors[None], l2=1e-2)
    correlations = []
    for factor in (1, 8):
        k = factor * p
        short = [project(g, k, kind, 1)[None] for g in (train, valid)]
        # the mean of the diagonal is that of k entries: the same ridge is k / p times it
        found = trak(*short, errors[None], l2=1e-2 * factor)
        correlations.append(spearmanr(found.numpy(), exact.numpy()).statistic)
    assert correlations[1] > 0.95
    assert correlations[1] > correlations[0]


def test_more_dimensions_than_samples_are_solved_by_the_smaller_matrix():
    phi, v, q = numbers(1, 6, 9), numbers(1, 4, 9, seed=1), numbers(1, 6, seed=2).abs()
    gram = phi[0].T @ phi[0]
    ridge = 1e-2 * gram.diagonal().mean() * torch.eye(9, dtype=torch.float64)
    expected = v[0] @ torch.linalg.solve(gram + ridge, phi[0].T) * q[0]
    torch.testing.assert_close(trak(phi, v, q, per_target=True), expected, rtol=1e-8, atol=1e-10)


def test_rows_permute_with_the_samples():
    phi, v, q = numbers(2, 30, 5), numbers(2, 4, 5, seed=1), numbers(2, 30, seed=2).abs()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    straight, permuted = trak(phi, v, q), trak(phi[:, order], v, q[:, order])
    torch.testing.assert_close(permuted, straight[order], rtol=1e-10, atol=1e-12)


def test_the_two_means_are_taken_separately():
    phi, v, q = numbers(2, 30, 5), numbers(2, 4, 5, seed=1), numbers(2, 30, seed=2).abs()
    ridge = [1e-2 * (f.T @ f).diagonal().mean() * torch.eye(5, dtype=torch.float64) for f in phi]
    parts = [v[j] @ torch.linalg.solve(phi[j].T @ phi[j] + ridge[j], phi[j].T) for j in (0, 1)]
    by_hand = (parts[0] + parts[1]) / 2 * (q[0] + q[1]) / 2
    mean_of_products = (parts[0] * q[0] + parts[1] * q[1]) / 2
    found = trak(phi, v, q, per_target=True)
    torch.testing.assert_close(found, by_hand)
    assert float((found - mean_of_products).abs().max()) > 1e-3


def test_the_sign_is_that_of_help():
    phi = torch.eye(3, dtype=torch.float64)[None]
    v = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=torch.float64)
    assert trak(phi, v, torch.ones(1, 3, dtype=torch.float64), l2=0.0).tolist() == [1.0, -1.0, 0.0]
    confident = trak(phi, v, torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64), l2=0.0)
    assert confident[0] == 0  # a sample that is certain changes nothing


PHI, V, Q = np.ones((2, 3, 4)), np.ones((2, 5, 4)), np.ones((2, 3))


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: trak(PHI, V, Q, l2=0.0), "l2=0 with 4 dimensions and 3 samples is singular; set l2=0.01"),
        (lambda: trak(PHI[:, :, :2], V[:, :, :2], Q, l2=0.0), "is singular with a ridge of 0; set l2=0.01"),
        (lambda: trak(PHI, V, Q, l2=-1.0), "l2=-1.0; expected a number >= 0"),
        (lambda: trak(PHI[:0], V[:0], Q[:0]), r"train_features has shape \(0, 3, 4\)"),
        (lambda: trak(PHI, V[:1], Q), r"valid_features has shape \(1, 5, 4\); expected \(2, m, 4\)"),
        (lambda: trak(PHI, V, Q[:, :2]), r"errors has shape \(2, 2\); expected \(2, 3\)"),
        (lambda: trak(PHI * np.inf, V, Q), r"train_features\[0, 0, 0\] is inf"),
        (lambda: Trak(projection="fft"), "projection='fft'; expected one of"),
        (lambda: Trak(l2=-0.1), "l2=-0.1; expected a number >= 0"),
        (lambda: Trak(dimensions=0), "dimensions=0; expected an integer >= 1"),
        (lambda: Trak(models=0).needs(), "runs=0; expected an integer >= 1"),
        (lambda: Trak(share=2.0).needs(), "share=2.0"),
    ],
)
def test_errors_name_what_is_wrong(make, text):
    with pytest.raises(ModicumError, match=text):
        make()


def splits(n=80, m=20):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(n + m, 4, generator=draw), torch.randint(3, (n + m,), generator=draw)
    info = Info(classes=tuple("abc"))
    train = Dataset(x[:n], y[:n], ids=np.random.default_rng(0).permutation(n), info=info)
    return Splits(train, Dataset(x[n:], y[n:], info=info), Dataset(x[n:], y[n:], info=info))


@pytest.mark.parametrize(
    "kind, dimensions", [("count-sketch", 12), ("rademacher", 7), ("gaussian", 12), ("rademacher", 99)]
)
def test_the_method_is_the_mathematics(kind, dimensions):
    data, ctx = splits(), Context()
    method = Trak(models=3, dimensions=dimensions, projection=kind)
    table = method.needs()[0].measure(data, RECIPE, ctx)
    assert table.masks.sum(1).tolist() == [40, 40, 40]
    found = method.score(data, ctx, table)
    options = {"dimensions": min(dimensions, 20), "kind": kind, "function": log_odds}
    train, valid = (
        torch.stack([table.gradients(part, run, seed=run, **options) for run in range(3)])
        for part in ("train", "valid")
    )
    losses = torch.stack([table.values("train", run) for run in range(3)])
    expected = trak(train, valid, 1 - (-losses).exp())
    np.testing.assert_allclose(found.values[table.positions(data.train)], expected.numpy(), rtol=1e-3, atol=1e-4)
    assert found.kind == "value"
    assert (found.errors > 0).all()


def test_a_model_smaller_than_the_projection_is_not_projected():
    data, ctx, recipe = splits(n=200), Context(), Recipe(model="linear", epochs=2, batch_size=16, lr=0.05)
    kinds = [Trak(models=2, projection=kind) for kind in ("count-sketch", "gaussian")]
    a, b = (kind.score(data, ctx, kind.needs()[0].measure(data, recipe, ctx)).values for kind in kinds)
    assert np.array_equal(a, b)


def test_standard_errors_are_those_of_the_estimate():
    data, ctx, method = splits(), Context(), Trak(models=8)
    scores = [
        method.score(data, ctx, method.needs()[0].measure(data, RECIPE, Context(seed=1000 * s))) for s in range(12)
    ]
    spread = np.stack([s.values for s in scores]).std(0, ddof=1)
    told = np.stack([s.errors for s in scores]).mean(0)
    assert math.log(2) > abs(float(np.log(np.median(spread / told))))


def test_one_model_has_no_standard_errors():
    data, ctx, method = splits(), Context(), Trak(models=1)
    assert method.score(data, ctx, method.needs()[0].measure(data, RECIPE, ctx)).errors is None
