import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.scores import Budget
from modicum.selection import Glister, glister
from modicum.selection.glister import _rounds, _valid
from modicum.selection.gradient_rows import GradientRows
from modicum.training.recipe import Recipe

N, M, C, D = 50, 20, 3, 5


def problem(seed=0):
    """A softmax layer, training and validation samples, in float64."""
    draw = torch.Generator().manual_seed(seed)
    h, v = (F.pad(torch.randn(n, D, generator=draw, dtype=torch.float64), (0, 1), value=1.0) for n in (N, M))
    layer = torch.randn(C, D + 1, generator=draw, dtype=torch.float64)
    y, answers = torch.randint(C, (N,), generator=draw), torch.randint(C, (M,), generator=draw)
    e = (h @ layer.T).softmax(1) - F.one_hot(y, C)
    return layer, e, h, v, answers


def loss(layer, v, answers):
    return float(F.cross_entropy(v @ layer.T, answers))


def test_gains_of_the_first_round_are_the_derivative_of_the_validation_loss():
    layer, e, h, v, answers = problem()
    positions, gains = glister((e, h), v @ layer.T, v, answers, N, rate=1.0, rounds=1)
    step = 1e-6
    for at, gain in zip(positions.tolist(), gains.tolist()):
        along = torch.outer(e[at], h[at])
        there, back = (loss(layer - s * along, v, answers) for s in (step, -step))
        assert abs((back - there) / (2 * step) - gain) < 1e-7


def test_one_round_is_the_static_choice():
    layer, e, h, v, answers = problem()
    mean = ((v @ layer.T).softmax(1) - F.one_hot(answers, C)).T @ v / M
    static = torch.einsum("nc,cd,nd->n", e, mean, h).argsort(descending=True)[:10]
    positions, _ = glister((e, h), v @ layer.T, v, answers, 10, rounds=1)
    assert positions.tolist() == static.tolist()


@pytest.mark.parametrize("rounds", [2, 4, 7, 100])
def test_every_round_is_the_static_choice_at_the_layer_moved_by_hand(rounds):
    layer, e, h, v, answers = problem()
    rate, k, left = 0.3, 12, list(range(N))
    positions, gains = glister((e, h), v @ layer.T, v, answers, k, rate, rounds)
    sizes = [len(part) for part in np.array_split(np.arange(k), min(rounds, k))]
    expected = []
    for size in sizes:
        mean = ((v @ layer.T).softmax(1) - F.one_hot(answers, C)).T @ v / M
        scores = rate * torch.einsum("nc,cd,nd->n", e, mean, h)
        best = sorted(left, key=lambda i, s=scores: -float(s[i]))[:size]
        expected += [(i, float(scores[i])) for i in best]
        left = [i for i in left if i not in best]
        layer = layer - rate * e[best].T @ h[best]
    assert positions.tolist() == [i for i, _ in expected]
    assert np.allclose(gains, [g for _, g in expected], atol=1e-12)


def test_every_sample_has_a_number_and_a_round():
    layer, e, h, v, answers = problem()
    rows = GradientRows(e, h)
    found = _rounds(rows, *_valid(rows, v @ layer.T, v, answers), 10, 0.1, 4)
    assert np.isfinite(found.values).all()
    assert np.bincount(found.rounds).tolist() == [40, 3, 3, 2, 2]
    assert (found.rounds[found.picks] > 0).all()


def test_soft_labels_are_labels():
    layer, e, h, v, answers = problem()
    hard = glister((e, h), v @ layer.T, v, answers, 10)
    soft = glister((e, h), v @ layer.T, v, F.one_hot(answers, C).double(), 10)
    assert hard[0].tolist() == soft[0].tolist()
    assert torch.equal(hard[1], soft[1])


def test_deepcore_never_moves_the_layer():
    layer, e, h, v, answers = problem()
    given = ((e, h), v @ layer.T, v, answers, 20)
    compat = glister(*given, rate=0.5, deepcore_compat=True)
    assert compat[0].tolist() == glister(*given, rate=0.5, rounds=1)[0].tolist()
    assert set(compat[0].tolist()) != set(glister(*given, rate=0.5)[0].tolist())


@pytest.mark.parametrize(
    "change, kind, text",
    [
        ({"rate": 0.0}, ModicumError, "rate=0.0; expected a learning rate > 0"),
        ({"rounds": 0}, ModicumError, "rounds=0; expected an integer >= 1"),
        ({"rounds": 2.5}, ModicumError, "rounds=2.5"),
        ({"budget": N + 1}, BudgetError, "asks for 51 samples, but there are 50"),
        ({"gradients": torch.zeros(3, 2)}, DataError, "gradients is a Tensor; expected two factors"),
        ({"valid_logits": torch.zeros(0, C)}, DataError, "valid_logits has shape"),
        ({"valid_logits": torch.zeros(M, 2)}, DataError, "do not fit gradients of 3 x 6"),
        ({"valid_features": torch.zeros(M, D)}, DataError, r"expected \(m, 3\) and \(m, 6\)"),
        ({"valid_features": torch.full((M, D + 1), torch.nan)}, DataError, r"valid_features\[0, 0\] is nan"),
        ({"valid_targets": torch.full((M,), 7)}, DataError, "valid_targets has class 7; expected 0..2"),
        ({"valid_targets": torch.zeros(M, 2)}, DataError, "valid_targets has shape"),
        ({"valid_targets": torch.zeros(4, dtype=torch.int64)}, DataError, "valid_targets has shape"),
    ],
)
def test_errors_name_the_argument(change, kind, text):
    layer, e, h, v, answers = problem()
    given = {"gradients": (e, h), "valid_logits": v @ layer.T, "valid_features": v, "valid_targets": answers}
    with pytest.raises(kind, match=text):
        glister(**{**given, "budget": 5, **change})


def made(valid):
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.normal(size=(60, 5)).astype(np.float32))
    data = Dataset(x, torch.arange(60) % 3, info=Info(classes=("a", "b", "c")))
    return Splits(data, data[valid], data[:9])


def test_by_class_every_class_needs_validation_samples():
    method, recipe = Glister(per_class=True), Recipe(epochs=4, batch_size=10)
    data = made(np.arange(9))
    chosen = method.select(data, Budget(per_class=4), Context(), method.needs()[0].measure(data, recipe, Context()))
    assert np.bincount(data.train.targets[chosen.positions]).tolist() == [4, 4, 4]
    assert chosen.reasons[chosen.positions[0]].startswith("round ")
    assert chosen.weights is None
    data = made(np.array([0, 1, 3, 4]))
    with pytest.raises(ModicumError, match="valid has no sample of class 2; expected some of every class"):
        method.select(data, Budget(per_class=4), Context(), method.needs()[0].measure(data, recipe, Context()))
