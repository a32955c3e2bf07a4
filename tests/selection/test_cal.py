import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.measurement import Gradients
from modicum.scores import Budget
from modicum.selection import Cal, cal
from modicum.training.evaluate import forward
from modicum.training.recipe import Recipe


def problem(n=40, d=3, c=4, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, d)), draw.dirichlet(np.ones(c), n)


def naive(x, p, k, pool=None, table=None):
    pool = range(len(x)) if pool is None else pool
    found = []
    for i in pool:
        others = [j for j in (range(len(x)) if table is None else table) if j != i]
        near = sorted(others, key=lambda j: (((x[i] - x[j]) ** 2).sum(), j))[:k]
        found.append(np.mean([(p[j] * np.log(p[j] / p[i])).sum() for j in near]))
    return np.array(found)


@pytest.mark.parametrize("k", [1, 5])
def test_equals_the_definition(k):
    x, p = problem()
    np.testing.assert_allclose(cal(x, p, k), naive(x, p, k), rtol=1e-9, atol=1e-12)


def test_from_the_labeled_only():
    x, p = problem()
    known = np.array([3, 7, 20, 21, 35])
    pool = np.setdiff1d(np.arange(40), known)
    scores = cal(x, p, 3, known)
    assert np.isnan(scores[known]).all()
    np.testing.assert_allclose(scores[pool], naive(x, p, 3, pool, known), rtol=1e-9)


def test_labeled_neighbors_far_from_zero():
    x, p = problem()
    known, far = np.arange(20), (x + 1e4).astype(np.float32)
    np.testing.assert_array_equal(cal(far, p, 3, known), cal(far.astype(np.float64) - 1e4, p, 3, known))


def test_symmetric():
    x, p = problem()
    hand = np.empty(40)
    for i in range(40):
        j = min((j for j in range(40) if j != i), key=lambda j: ((x[i] - x[j]) ** 2).sum())
        hand[i] = ((p[j] - p[i]) * np.log(p[j] / p[i])).sum() / 2
    np.testing.assert_allclose(cal(x, p, 1, symmetric=True), hand, rtol=1e-9)


def test_one_neighbor_by_hand():
    x, p = np.array([[0.0], [1.0]]), np.array([[0.5, 0.5], [0.9, 0.1]])
    forth = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    back = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    np.testing.assert_allclose(cal(x, p, 1), [forth, back], rtol=1e-12)


def test_equal_predictions_are_zero():
    x, _ = problem()
    assert cal(x, np.tile([0.2, 0.3, 0.5], (40, 1)), 5).tolist() == [0] * 40


def test_the_sample_between_two_clusters_has_the_highest_score():
    draw = np.random.default_rng(0)
    x = np.concatenate([draw.normal(size=(20, 2)) * 0.2 - 3, draw.normal(size=(20, 2)) * 0.2 + 3, [[0.3, 0.3]]])
    p = np.array([[0.98, 0.02]] * 20 + [[0.02, 0.98]] * 20 + [[0.6, 0.4]])
    scores = cal(x, p, 5)
    assert scores.argmax() == 40
    assert cal(x, p, 5, deepcore_compat=True).argmax() == 40


def test_zeros_are_clamped_and_as_released_give_nan():
    x, p = np.arange(4.0)[:, None], np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert cal(x, p, 1) == pytest.approx([0, 0, np.log(1e12), 0])  # the third is as far from both sides
    assert cal(x, p, 2)[1] == pytest.approx(np.log(1e12) / 2)
    assert np.isnan(cal(x, p, 2, deepcore_compat=True)).any()


def test_equal_samples_are_their_own_neighbors_only_as_released():
    x = np.array([[0.0], [0.0], [0.0], [5.0], [6.0]])
    p = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]])
    hand = naive(x, p, 2)
    np.testing.assert_allclose(cal(x, p, 2), hand, atol=1e-12)
    assert not np.allclose(cal(x, p, 2, deepcore_compat=True), hand)


def test_kind_and_dtype_are_kept():
    x, p = (torch.from_numpy(part).float() for part in problem())
    assert cal(x, p, 3).dtype == torch.float32
    np.testing.assert_allclose(cal(x, p, 3), cal(x.double(), p.double(), 3), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"neighbors": 40}, "neighbors=40; expected an integer from 1 to 39, the number of the other samples"),
        ({"neighbors": 0}, "neighbors=0"),
        (
            {"labeled": np.arange(3), "neighbors": 4},
            "neighbors=4; expected an integer from 1 to 3, the number of the lab",
        ),
        ({"labeled": np.array([40])}, "labeled has position 40; expected positions from 0 to 39"),
        ({"probabilities": np.full((39, 2), 0.5)}, "probabilities has 39 rows but features 40"),
        ({"probabilities": np.ones((40, 2))}, "sums to 2"),
        ({"features": np.full((40, 2), np.nan)}, r"features\[0, 0\] is nan"),
    ],
)
def test_errors_name_the_argument(change, text):
    x, p = problem()
    with pytest.raises(DataError, match=text):
        cal(**{"features": x, "probabilities": p, **change})


RECIPE = Recipe(model="mlp(hidden=6, layers=1)", epochs=4, batch_size=8)


def splits():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(50, 5, generator=draw)
    y = (x[:, :3] + torch.randn(50, 3, generator=draw)).argmax(1)
    data = Dataset(x, y, ids=np.random.default_rng(0).permutation(90)[:50], info=Info(classes=tuple("abc")))
    return Splits(data[:40], data[40:], data[40:])


def test_the_method_keeps_the_highest_of_the_model_and_as_released_the_lowest():
    data = splits()
    table = Gradients((0.5,)).measure(data, RECIPE, Context())
    p = forward(table.model(), data.train, Context()).double().softmax(1)
    h = forward(table.model(), data.train, Context(), function=lambda model, x: model.features(x))
    expected = cal(h.double(), p, 5).numpy()
    chosen = Cal(5, 0.5, per_class=False).select(data, Budget(keep=10), Context(), table)
    np.testing.assert_allclose(chosen.values, expected, rtol=1e-3, atol=1e-6)
    assert chosen.positions.tolist() == np.sort(np.argsort(-chosen.values)[:10]).tolist()
    released = Cal(5, 0.5, per_class=False, deepcore_compat=True).select(data, Budget(keep=10), Context(), table)
    assert released.positions.tolist() == np.sort(np.argsort(chosen.values)[:10]).tolist()


def test_per_class_keeps_as_many_of_each_and_looks_at_neighbors_of_the_class():
    data = splits()
    table = Gradients((0.5,)).measure(data, RECIPE, Context())
    chosen = Cal(20, 0.5).select(data, Budget(per_class=3), Context(), table)
    assert np.bincount(data.train.targets[chosen.positions]).tolist() == [3, 3, 3]
    assert np.isfinite(chosen.values).all()


def test_options():
    with pytest.raises(ModicumError, match="option neighbors=0; expected an integer > 0"):
        Cal(neighbors=0)
