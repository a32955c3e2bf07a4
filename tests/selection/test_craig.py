import itertools
import sys

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.scores import Budget
from modicum.selection import Craig, craig
from modicum.selection.gradient_rows import GradientRows
from modicum.training.recipe import Recipe


def rows(n=120, p=12, seed=0):
    return np.random.default_rng(seed).normal(size=(n, p)) + 0.2


def bound(g, picks):
    return np.linalg.norm(g[:, None] - g[picks], axis=2).min(1).sum()


def by_definition(g, k):
    """The greedy algorithm as it is written, every gain anew."""
    near = np.linalg.norm(g[:, None] - g, axis=2)
    near = near.max() - near
    best, picks = np.zeros(len(g)), []
    for _ in range(k):
        gains = np.maximum(near - best[:, None], 0).sum(0)
        gains[picks] = -np.inf
        picks.append(int(gains.argmax()))
        best = np.maximum(best, near[:, picks[-1]])
    return picks


def test_equals_the_definition():
    for seed in range(3):
        g = rows(seed=seed)
        positions, weights = craig(g, 25)
        assert positions.tolist() == by_definition(g, 25)
        nearest = np.linalg.norm(g[:, None] - g[positions], axis=2).argmin(1)
        assert weights.tolist() == np.bincount(nearest, minlength=25).tolist()


@pytest.mark.parametrize("method", ["lazy", "stochastic"])
def test_weights_sum_to_n_and_the_bound_holds(method):
    for seed in range(3):
        g = rows(seed=seed)
        for k in (1, 10, 60):
            positions, weights = craig(g, k, method=method)
            assert len(np.unique(positions)) == k
            assert weights.sum() == len(g)
            assert (weights >= 1).all()
            assert np.linalg.norm(g.sum(0) - weights @ g[positions]) <= bound(g, positions)


@pytest.mark.parametrize("method", ["lazy", "stochastic"])
def test_all_samples_stand_for_themselves(method):
    g = rows(40)
    positions, weights = craig(g, 1.0, method=method)
    assert sorted(positions.tolist()) == list(range(40))
    assert weights.tolist() == [1.0] * 40
    assert np.linalg.norm(g.sum(0) - weights @ g[positions]) < 1e-12


def test_duplicates_count_as_often_as_they_are_there():
    g = np.repeat(10 * np.eye(3), [5, 2, 7], axis=0)
    positions, weights = craig(g, 3)
    assert dict(zip(g[positions].argmax(1).tolist(), weights.tolist())) == {0: 5.0, 1: 2.0, 2: 7.0}


def test_greedy_is_near_the_best_of_all_subsets():
    g = rows(11, 3)
    far = np.linalg.norm(g[:, None] - g, axis=2).max()
    value = len(g) * far - bound(g, craig(g, 3)[0])
    best = max(len(g) * far - bound(g, list(s)) for s in itertools.combinations(range(11), 3))
    assert value >= (1 - 1 / np.e) * best


def test_the_cheap_choice_covers_nearly_as_well():
    g = rows(600, 8)
    lazy, cheap = (bound(g, craig(g, 60, method=method)[0]) for method in ("lazy", "stochastic"))
    random = bound(g, np.random.default_rng(0).permutation(600)[:60])
    assert lazy < cheap * 1.001
    assert cheap - lazy < 0.1 * (random - lazy)


def test_cover_gives_the_smallest_part_of_the_sequence():
    g = rows()
    whole, _ = craig(g, 1.0)
    for method in ("lazy", "stochastic"):
        draw = torch.Generator().manual_seed(3)
        positions, weights = craig(g, 0.5, epsilon=270.0, method=method, generator=draw)
        assert bound(g, positions) <= 270 < bound(g, positions[:-1])
        assert weights.sum() == len(g)
        if method == "lazy":
            assert positions.tolist() == whole[: len(positions)].tolist()
    assert len(craig(g, 5, epsilon=0.0)[0]) == 5


def test_factors_equal_whole_gradients():
    draw = torch.Generator().manual_seed(0)
    e, h = (torch.randn(90, size, generator=draw, dtype=torch.float64) for size in (4, 9))
    whole = (e[:, :, None] * h[:, None]).flatten(1)
    for a, b in zip(craig((e, h), 20), craig(whole, 20)):
        assert a.tolist() == b.tolist()
    assert craig((e.float(), h.float()), 20)[1].dtype == torch.float32


def test_the_cheap_choice_does_not_depend_on_the_blocks(monkeypatch):
    g = rows()
    before = craig(g, 20, method="stochastic")[0]
    monkeypatch.setattr("modicum.selection.gradient_rows.BLOCK", 500)
    assert craig(g, 20, method="stochastic")[0].tolist() == before.tolist()


def test_many_samples_are_chosen_the_cheap_way(monkeypatch):
    monkeypatch.setattr(sys.modules["modicum.selection.craig"], "DENSE", 100)
    assert craig(rows(), 20)[0].tolist() == craig(rows(), 20, method="stochastic")[0].tolist()


def test_deepcore_counts_one_too_many():
    positions, weights = craig(rows(), 20)
    again, more = craig(rows(), 20, deepcore_compat=True)
    assert again.tolist() == positions.tolist()
    assert (more - weights).tolist() == [1.0] * 20
    assert more.sum() == 140


@pytest.mark.parametrize(
    "g, budget, options, kind, text",
    [
        (rows(), 121, {}, BudgetError, "asks for 121 samples, but there are 120"),
        (rows(), 5, {"epsilon": -1.0}, ModicumError, "epsilon=-1.0; expected a bound >= 0"),
        (rows(), 5, {"method": "fast"}, ModicumError, "method='fast'; expected 'auto', 'lazy' or 'stochastic'"),
        (rows(), Budget(per_class=2), {}, BudgetError, "is per class, but no classes are given here"),
        (np.full((3, 2), np.nan), 1, {}, DataError, r"gradients\[0, 0\] is nan"),
    ],
)
def test_errors_name_the_argument(g, budget, options, kind, text):
    with pytest.raises(kind, match=text):
        craig(g, budget, **options)


def test_the_method_counts_within_classes_and_says_who_stands_for_whom():
    draw = np.random.default_rng(0)
    data = Dataset(
        torch.from_numpy(draw.normal(size=(60, 5)).astype(np.float32)),
        torch.arange(60) % 3,
        ids=draw.permutation(1000)[:60],
        info=Info(classes=("a", "b", "c")),
    )
    splits, recipe = Splits(data, data[:9], data[:9]), Recipe(epochs=4, batch_size=10)
    method = Craig()
    table = method.needs()[0].measure(splits, recipe, Context())
    chosen = method.select(splits, Budget(keep=12), Context(), table)
    labels = data.targets.numpy()
    kept = chosen.positions
    for c in range(3):
        assert chosen.weights[labels[kept] == c].sum() == 20
    assert (chosen.values[kept] == 0).all()
    out = np.setdiff1d(np.arange(60), kept)
    assert (chosen.values[out] > 0).all()
    where = {int(name): at for at, name in enumerate(data.ids)}
    e, h = table.factors("train")
    g = GradientRows(e, h)
    place = {int(name): at for at, name in enumerate(table.train.ids)}
    for at in out:
        other = int(chosen.reasons[at].rpartition(" ")[2])
        assert where[other] in kept
        assert labels[where[other]] == labels[at]
        i, j = place[int(data.ids[at])], place[other]
        pair = g.gram(torch.tensor([i, j]))[[i, j]]
        distance = float(pair[0, 0] + pair[1, 1] - 2 * pair[0, 1]) ** 0.5
        assert abs(distance - chosen.values[at]) < 1e-3


def test_far_from_zero_no_digits_are_lost():
    g = rows(60, 4)
    for method in ("lazy", "stochastic"):
        expected = craig(g, 8, method=method)
        found = craig((g + 1000).astype(np.float32), 8, method=method)
        assert found[0].tolist() == expected[0].tolist()
        assert found[1].tolist() == expected[1].tolist()


def made():
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.normal(size=(60, 5)).astype(np.float32))
    return Dataset(x, torch.arange(60) % 3, ids=draw.permutation(1000)[:60], info=Info(classes=("a", "b", "c")))


def test_parts_are_what_distances_are_between():
    data = made()
    splits, recipe = Splits(data, data[:9], data[:9]), Recipe(epochs=4, batch_size=10)
    table = Craig().needs()[0].measure(splits, recipe, Context())
    e, h = table.factors("train")
    order = table.positions(data)
    standing = {"all": (e[:, :, None] * h[:, None]).flatten(1), "outputs": e, "inputs": None}
    for part, rows_of_part in standing.items():
        method = Craig(part=part)
        measured = table if part != "inputs" else method.needs()[0].measure(splits, recipe, Context())
        chosen = method.select(splits, Budget(per_class=4), Context(), measured)
        g = measured.train[order] if rows_of_part is None else rows_of_part
        for c in range(3):
            members = np.flatnonzero(data.targets[order].numpy() == c)
            at, weights = craig(g[members].double(), 4)
            kept = order[members[at]].numpy()
            assert set(kept.tolist()) <= set(chosen.positions.tolist())
            by_position = dict(zip(chosen.positions.tolist(), chosen.weights.tolist()))
            assert [by_position[p] for p in kept.tolist()] == weights.tolist()
    assert Craig(part="inputs").needs()[0].trainings() == 0
    with pytest.raises(ModicumError, match="option part='rows'; expected 'all', 'outputs', 'inputs'"):
        Craig(part="rows")


def test_it_is_charged_for_the_products_it_takes(monkeypatch):
    from modicum.selection.craig import products

    sizes = np.array([10, 30])
    assert products(sizes, "lazy") == products(sizes, "auto") == 1000
    assert products(sizes, "stochastic") == round(1000 * np.log(100))
    monkeypatch.setattr(sys.modules["modicum.selection.craig"], "DENSE", 20)
    assert products(sizes, "auto") == round(100 + 900 * np.log(100))
