import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.scores import Budget
from modicum.selection import Gradmatch, gradmatch
from modicum.selection.gradient_rows import GradientRows
from modicum.selection.gradmatch import matched, own_class
from modicum.training.recipe import Recipe


def rows(n=80, p=30, seed=0, shift=0.3):
    return np.random.default_rng(seed).normal(size=(n, p)) + shift


def by_definition(g, k, l2, goal=None):
    """Matching pursuit as it is written: every refit is scipy's on the gradients themselves."""
    goal = g.sum(0) if goal is None else goal
    chosen, weights = [], np.zeros(0)
    while len(chosen) < k:
        products = g @ (goal - weights @ g[chosen])
        products[chosen] = -np.inf
        j = int(products.argmax())
        if products[j] <= 1e-9:
            break
        chosen.append(j)
        stacked = np.vstack([g[chosen].T, np.sqrt(l2) * np.eye(len(chosen))])
        weights, _ = nnls(stacked, np.concatenate([goal, np.zeros(len(chosen))]))
        chosen = [s for s, w in zip(chosen, weights) if w > 0]
        weights = weights[weights > 0]
    return chosen, weights


def error(g, positions, weights, l2, goal=None):
    goal = g.sum(0) if goal is None else goal
    return np.square(goal - weights @ g[positions]).sum() + l2 * np.square(weights).sum()


@pytest.mark.parametrize("l2", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_equals_the_definition(l2, shift):
    for seed in range(4):
        g = rows(seed=seed, shift=shift)
        expected, heavy = by_definition(g, 20, l2)
        positions, weights = gradmatch(g, 20, l2)
        assert positions.tolist() == expected
        assert np.allclose(weights, heavy, rtol=1e-7)


def test_orthonormal_gradients_and_their_weights_are_recovered():
    g = np.linalg.qr(rows(40, 40))[0]
    chosen = np.array([3, 17, 5, 30, 8])
    weights = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    positions, found = gradmatch(g, 5, 0.0, target=weights @ g[chosen])
    assert positions.tolist() == chosen.tolist()
    assert np.allclose(found, weights, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 25), st.integers(1, 12), st.sampled_from([0.0, 0.1, 3.0]))
def test_weights_are_the_best_nonnegative_ones(seed, n, p, l2):
    g = rows(n, p, seed)
    positions, weights = gradmatch(g, n, l2)
    assert (weights > 0).all()
    assert len(np.unique(positions)) == len(positions) <= n
    rest = g.sum(0) - weights @ g[positions]
    scale = np.abs(g @ g.sum(0)).max()
    assert np.abs(g[positions] @ rest - l2 * weights).max() < 1e-9 * scale  # orthogonal to those it holds
    outside = ~np.isin(np.arange(n), positions)
    assert (g @ rest)[outside].max(initial=0) < 1e-9 * scale  # and nothing outside points along it


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_the_error_falls_with_every_sample(l2):
    g = rows(60, 50)
    errors = [error(g, *gradmatch(g, k, l2), l2) for k in range(1, 40)]
    assert (np.diff(errors) <= 1e-9).all()


def test_negative_products_are_never_taken():
    g = np.array([[1.0, 0.0], [-10.0, 0.0], [0.0, 1.0]])
    positions, weights = gradmatch(g, 3, 0.0, target=np.array([2.0, 3.0]))
    assert sorted(positions.tolist()) == [0, 2]
    assert np.allclose(weights, [3, 2])


def test_equal_gradients_share_their_weight_and_without_penalty_one_suffices():
    g = np.ones((4, 2))
    assert gradmatch(g, 4, 0.0)[0].tolist() == [0]
    assert gradmatch(g, 4, 0.0)[1].tolist() == [4.0]
    positions, weights = gradmatch(g, 4, 1.0)
    assert sorted(positions.tolist()) == [0, 1, 2, 3]
    assert np.allclose(weights, 8 / 9)  # (2 J + I) w = 8


def test_it_ends_at_epsilon():
    g = rows(60, 50)
    errors = [error(g, *gradmatch(g, k, 0.0), 0.0) for k in (5, 6)]
    assert len(gradmatch(g, 40, 0.0, epsilon=sum(errors) / 2)[0]) == 6


def test_factors_equal_whole_gradients_and_float32_agrees():
    draw = torch.Generator().manual_seed(0)
    e, h = (torch.randn(100, size, generator=draw, dtype=torch.float64) + 0.2 for size in (4, 9))
    whole = (e[:, :, None] * h[:, None]).flatten(1)
    a, b = gradmatch((e, h), 25, 0.5), gradmatch(whole, 25, 0.5)
    assert a[0].tolist() == b[0].tolist()
    assert torch.allclose(a[1], b[1])
    short = gradmatch((e.float(), h.float()), 25, 0.5)
    assert short[1].dtype == torch.float32
    assert short[0].tolist()[:10] == a[0].tolist()[:10]


def test_many_samples_come_and_go():
    g = rows(400, 30, shift=0.0)  # more samples than dimensions: weights often become zero
    positions, weights = gradmatch(g, 28, 0.0)
    expected, heavy = by_definition(g, 28, 0.0)
    assert positions.tolist() == expected
    assert np.allclose(weights, heavy, rtol=1e-6)


def test_deepcore_matches_the_mean_with_signed_weights_until_the_end():
    g = rows(80, 60, shift=0.1)
    positions, weights = gradmatch(g, 40, 0.5, deepcore_compat=True)
    assert len(positions) == 40
    assert (weights >= 0).all()
    ours = gradmatch(g, 40, 0.5)
    assert abs(weights.sum() * len(g) / ours[1].sum() - 1) < 0.2  # a target 80 times smaller
    mean, chosen, signed = g.mean(0), [], np.zeros(0)
    for _ in range(40):
        products = g @ (mean - signed @ g[chosen])
        products[chosen] = -np.inf
        chosen.append(int(products.argmax()))
        normal = g[chosen] @ g[chosen].T + 0.5 * np.eye(len(chosen))
        signed = np.linalg.solve(normal, g[chosen] @ mean)
    assert positions.tolist() == chosen
    assert np.allclose(weights, nnls(normal, g[chosen] @ mean)[0], atol=1e-8)
    assert set(chosen) != set(ours[0].tolist())


@pytest.mark.parametrize(
    "g, budget, options, kind, text",
    [
        (rows(), 81, {}, BudgetError, "asks for 81 samples, but there are 80"),
        (np.zeros((3, 2)), 1, {}, ModicumError, "target has norm 0 and no gradient points along it"),
        (rows(), 5, {"l2": -1.0}, ModicumError, "l2=-1.0; expected a number >= 0"),
        (rows(), 5, {"l2": np.nan}, ModicumError, "l2=nan"),
        (rows(), 5, {"epsilon": -1.0}, ModicumError, "epsilon=-1.0"),
        (rows(), 5, {"target": np.ones(3)}, DataError, r"target has shape \(3,\); expected \(30,\)"),
        (np.full((3, 2), np.nan), 1, {}, DataError, r"gradients\[0, 0\] is nan"),
    ],
)
def test_errors_name_the_argument(g, budget, options, kind, text):
    with pytest.raises(kind, match=text):
        gradmatch(g, budget, **options)


def test_the_own_class_is_one_row_of_the_gradient():
    e, h = torch.randn(6, 3), torch.randn(6, 4)
    labels = np.array([0, 2, 1, 0, 1, 2])
    own = own_class(GradientRows(e, h), labels)
    for i, c in enumerate(labels):
        assert torch.equal(own.left[i] * own.right[i], (e[i, :, None] * h[i])[c])


def test_what_fewer_match_is_filled_up_and_said():
    g = torch.from_numpy(np.repeat(np.eye(2), 5, axis=0))
    chosen = matched(GradientRows(g), np.arange(10) // 5, Budget(keep=6), 0.0, torch.Generator().manual_seed(0))
    assert len(np.unique(chosen.picks)) == 6
    assert chosen.note == "4 of 6 were filled in at random: fewer match the gradient"
    assert sorted(chosen.weights.tolist()) == [1, 1, 1, 1, 5, 5]
    assert sum(text.startswith("filled in") for text in chosen.reasons) == 4


def test_the_method_weighs_and_says_why():
    draw = np.random.default_rng(0)
    data = Dataset(
        torch.from_numpy(draw.normal(size=(60, 5)).astype(np.float32)),
        torch.arange(60) % 3,
        info=Info(classes=("a", "b", "c")),
    )
    splits, recipe = Splits(data, data[:9], data[:9]), Recipe(epochs=4, batch_size=10)
    for method in (Gradmatch(), Gradmatch(part="all", l2=0.0)):
        table = method.needs()[0].measure(splits, recipe, Context())
        chosen = method.select(splits, Budget(keep=12), Context(), table)
        assert len(chosen) == 12
        assert (chosen.weights > 0).all()
        assert np.isfinite(chosen.values).all()
        assert chosen.reasons[chosen.positions[0]].startswith("weight ")
        assert abs(float(chosen.taken_from(data).weights.mean()) - 1) < 1e-6
    with pytest.raises(ModicumError, match="option part='rows'; expected 'class', 'all'"):
        Gradmatch(part="rows")
