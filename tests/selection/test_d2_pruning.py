import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.measurement.features import FeatureTable
from modicum.methods import make
from modicum.scores import Budget, Scores
from modicum.selection import d2_pruning
from modicum.selection.d2_pruning import Messages, _forward, _near, _pick


def data(n=40, d=3, seed=0):
    draw = np.random.default_rng(seed)
    return draw.exponential(size=n), draw.normal(size=(n, d))


def dense(x, neighbors):
    """Distances in units of the median of the directed edges, infinite where there is no edge in either direction."""
    n = len(x)
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    near = np.argsort(np.where(np.eye(n, dtype=bool), np.inf, d), axis=1, kind="stable")[:, :neighbors]
    edge = np.zeros((n, n), bool)
    edge[np.arange(n)[:, None], near] = True
    directed = d[edge]
    return np.where(edge | edge.T, d / (np.median(directed[directed > 0]) if (directed > 0).any() else 1.0), np.inf)


def heard(scores, d, forward, mode):
    start = scores - min(0, scores.min())
    there = np.isfinite(d)
    around = (np.where(there, np.exp(-forward * np.where(there, d, 0)), 0) * start).sum(1)
    return start + around if mode == "sum" else start * around


def greedy(number, d, k, reverse, way):
    """The formula as it is written, looking at everything for every pick."""
    picks, out, number = [], np.zeros(len(d), bool), number.copy()
    for _ in range(k):
        at = int(np.where(out, -np.inf, number).argmax())
        picks.append(at)
        out[at] = True
        there = np.isfinite(d[at])
        weight = np.exp(-reverse * d[at, there]) if way == "weighted" else 1.0
        number[there] -= weight * max(number[at], 0)
    return picks


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(3, 40),
    neighbors=st.integers(1, 8),
    seed=st.integers(0, 1000),
    mode=st.sampled_from(["sum", "product"]),
    way=st.sampled_from(["weighted", "absolute"]),
    forward=st.floats(0, 3),
    reverse=st.floats(0, 3),
)
def test_the_heap_gives_the_sequence_of_the_definition(n, neighbors, seed, mode, way, forward, reverse):
    scores, x = data(n, seed=seed)
    neighbors = min(neighbors, n - 1)
    messages = Messages(forward, reverse, mode, way)
    edges = _near(x, neighbors)
    before = _forward(scores, edges, messages)
    d = np.full((n, n), np.inf)
    d[np.repeat(np.arange(n), np.diff(edges.starts)), edges.targets] = edges.lengths
    assert np.allclose(d, dense(x, neighbors), rtol=1e-12, atol=0)
    assert np.allclose(before, heard(scores, d, forward, mode), rtol=1e-12, atol=0)
    picks, _, after, _ = _pick(scores, edges, n, messages)
    assert picks.tolist() == greedy(before, d, n, reverse, way)
    assert (after <= before).all()
    assert d2_pruning(scores, x, n, neighbors, forward, reverse, mode, way).tolist() == picks.tolist()


def test_ties_go_to_the_lower_position():
    x = np.array([[0.0], [1], [4], [5], [8], [9], [12], [13]])
    scores = np.array([1.0, 1, 2, 2, 1, 1, 2, 2])
    assert d2_pruning(scores, x, 8, 1, 0.0).tolist() == greedy(
        heard(scores, dense(x, 1), 0, "sum"), dense(x, 1), 8, 0.1, "weighted"
    )
    assert d2_pruning(scores, x, 8, 1, 0.0)[:2].tolist() == [2, 6]


def test_without_edges_it_is_the_top_of_the_scores():
    scores, x = data()
    top = np.argsort(-scores, kind="stable")
    assert d2_pruning(scores, x, 40, neighbors=0).tolist() == top.tolist()
    assert d2_pruning(
        scores, None, 40, neighbors=0, graph=(np.empty((40, 0), int), np.empty((40, 0)))
    ).tolist() == list(top)


def test_without_messages_of_the_picks_it_is_the_top_of_the_forward_scores():
    scores, x = data()
    forward = _forward(scores, _near(x, 5), Messages())
    assert d2_pruning(scores, x, 40, 5, gamma_reverse=np.inf).tolist() == np.argsort(-forward, kind="stable").tolist()
    assert d2_pruning(scores, x, 40, 5, gamma_reverse=1e9).tolist() == np.argsort(-forward, kind="stable").tolist()
    assert d2_pruning(scores, x, 40, 5).tolist() != np.argsort(-forward, kind="stable").tolist()


def test_a_duplicate_falls_by_exactly_the_number_of_the_one_that_is_picked():
    scores, x = data()
    x[7] = x[3]
    scores[3], scores[7] = 50, 40
    for gamma in (0.1, 5.0, np.inf):
        picks, before, after, spent = _pick(scores, _near(x, 5), 1, Messages(gamma_reverse=gamma))
        assert picks.tolist() == [3]
        assert spent == 0
        assert after[7] == before[7] - before[3]


def test_distances_are_in_units_of_their_median():
    scores, x = data()
    straight = d2_pruning(scores, x, 20).tolist()
    assert d2_pruning(scores, 1000 * x, 20).tolist() == straight  # on raw distances every kernel would be zero
    assert straight != np.argsort(-scores)[:20].tolist()


def test_a_shift_of_negative_scores_and_infinities():
    scores, x = data()
    assert d2_pruning(scores - 9, x, 20).tolist() == d2_pruning(scores - scores.min(), x, 20).tolist()
    endless = np.where(scores == scores.max(), np.inf, scores)
    assert (
        d2_pruning(endless, x, 20).tolist()
        == d2_pruning(np.where(np.isinf(endless), np.sort(scores)[-2] + 1, scores), x, 20).tolist()
    )


def test_a_given_graph_is_used_in_both_directions_and_without_loops():
    near, distances = np.array([[0], [0], [2]]), np.array([[0.0], [2.0], [0.0]])
    ours = d2_pruning(np.array([1.0, 3.0, 2.0]), None, 3, graph=(near, distances), neighbors=1)
    e = np.exp(-1)
    first, second = 1 + 3 * e, 3 + 1 * e
    assert second > 2 > first - np.exp(-0.1) * second
    assert ours.tolist() == [1, 2, 0]


def test_a_smaller_budget_is_the_first_of_a_larger_one_and_kinds_are_kept():
    scores, x = data()
    assert d2_pruning(scores, x, 30)[:10].tolist() == d2_pruning(scores, x, 10).tolist()
    scores.flags.writeable = x.flags.writeable = False
    ours = d2_pruning(torch.from_numpy(scores.copy()), torch.from_numpy(x.copy()), 10)
    assert isinstance(ours, torch.Tensor)
    assert ours.tolist() == d2_pruning(scores, x, 10).tolist()


def test_of_data_where_each_sample_comes_twice_it_hardly_takes_pairs():
    scores, x = data(300, 5)
    x, scores = np.concatenate([x, x]), np.concatenate([scores, scores])
    picked = d2_pruning(scores, x, 60)
    assert 60 - len(np.unique(picked % 300)) < 0.05 * 60
    top = np.argsort(-scores, kind="stable")[:60]
    assert len(np.unique(top % 300)) == 30


@pytest.mark.parametrize(
    "call, error, text",
    [
        (
            lambda s, x: d2_pruning(s, x, 5, neighbors=40),
            DataError,
            r"neighbors=40; expected an integer from 0 to n - 1 = 39",
        ),
        (lambda s, x: d2_pruning(s, x, 5, gamma_forward=-1), DataError, "gamma_forward=-1; expected a number >= 0"),
        (lambda s, x: d2_pruning(s, x, 5, gamma_reverse=np.nan), DataError, "gamma_reverse=nan"),
        (
            lambda s, x: d2_pruning(s, x, 5, mode="mean"),
            DataError,
            r"mode='mean'; expected one of \('sum', 'product'\)",
        ),
        (lambda s, x: d2_pruning(s, x, 5, reverse="no"), DataError, "reverse='no'; expected one of"),
        (lambda s, x: d2_pruning(s, x[1:], 5), DataError, "features has 39 rows; expected 40, one for each score"),
        (lambda s, x: d2_pruning(s, None, 5), DataError, "features is a NoneType; expected a torch tensor"),
        (lambda s, x: d2_pruning(s * np.nan, x, 5), DataError, r"scores\[0\] is nan"),
        (lambda s, x: d2_pruning(s, x * np.nan, 5), DataError, r"features\[0, 0\] is nan"),
        (lambda s, x: d2_pruning(s, x, 41), BudgetError, "41 asks for 41 samples, but there are 40"),
        (
            lambda s, x: d2_pruning(s, None, 5, graph=(np.zeros((3, 1), int), np.zeros((3, 1)))),
            DataError,
            r"graph has shapes \(3, 1\) and \(3, 1\); expected integers \(40, m\)",
        ),
        (
            lambda s, x: d2_pruning(s, None, 5, graph=(np.full((40, 1), 40), np.zeros((40, 1)))),
            DataError,
            r"graph has positions from 40 to 40; expected 0..39",
        ),
        (
            lambda s, x: d2_pruning(s, None, 5, graph=(np.zeros((40, 1), int), np.full((40, 1), -1.0))),
            DataError,
            "graph has distances that are negative or not finite",
        ),
        (
            lambda s, x: d2_pruning(s, None, 5, graph=np.zeros((40, 2))),
            DataError,
            "graph is a ndarray; expected the pair",
        ),
        (lambda s, x: d2_pruning(s, x, 5, gamma_forward="x"), DataError, "gamma_forward='x'; expected a number >= 0"),
        (
            lambda s, x: d2_pruning(s, x, "2/class"),
            BudgetError,
            "budget=2/class is per class, but no classes are given",
        ),
        (lambda s, x: make("d2-pruning(mode='no')"), ModicumError, "option mode='no'; expected 'sum', 'product'"),
        (lambda s, x: make("d2-pruning(neighbors=-1)"), ModicumError, "option neighbors=-1; expected an integer >= 0"),
        (lambda s, x: make("d2-pruning(beta=1.0)"), ModicumError, "option beta=1.0; expected None or a number"),
        (lambda s, x: make("d2-pruning(class_balance=0.5)"), ModicumError, "class_balance=0.5 is for per_class=False"),
    ],
)
def test_errors_name_the_argument(call, error, text):
    with pytest.raises(error, match=text):
        call(*data())


def selected(text, scores, x, y, budget, kind="difficulty", seed=0):
    train = Dataset(torch.from_numpy(x), torch.from_numpy(y), info=Info(classes=("a", "b")))
    table = FeatureTable(torch.from_numpy(x), torch.from_numpy(x[:1]))
    given_scores = Scores(scores, train.ids, "x", kind, "points", y)
    return make(text).select(Splits(train, train, train), Budget(**budget), Context(seed=seed), given_scores, table)


def test_the_method_works_class_by_class():
    scores, x = data(60)
    y = np.repeat([0, 1], [40, 20])
    chosen = selected("d2-pruning(beta=0.0)", scores, x, y, {"keep": 0.3})
    expected = [np.flatnonzero(y == c)[d2_pruning(scores[y == c], x[y == c], k)] for c, k in ((0, 12), (1, 6))]
    assert chosen.positions.tolist() == sorted(np.concatenate(expected).tolist())
    jointly = selected("d2-pruning(beta=0.0, per_class=False)", scores, x, y, {"keep": 0.3})
    assert jointly.positions.tolist() == sorted(d2_pruning(scores, x, 18).tolist())
    floor = selected("d2-pruning(beta=0.0, per_class=False, class_balance=1.0)", scores, x, y, {"keep": 0.3})
    assert np.bincount(y[floor.positions]).tolist() == [9, 9]


def test_the_method_cuts_the_hardest_fills_up_and_says_so():
    scores, x = data(60)
    y = np.repeat([0, 1], [40, 20])
    chosen = selected("d2-pruning(beta=0.4)", scores, x, y, {"keep": 0.1})
    cut = np.argsort(-scores)[:24]
    assert not np.isin(chosen.positions, cut).any()
    assert set(chosen.reasons[cut]) == {"harder than the cutoff of 40 %"}
    assert np.isnan(chosen.values[cut]).all()
    assert np.isfinite(np.delete(chosen.values, cut)).all()
    assert set(chosen.reasons[chosen.positions]) == {"hard, and apart from those picked before it"}
    assert {"a sample beside it stands for it", "easier than those kept"} >= set(
        np.delete(chosen.reasons, [*cut, *chosen.positions])
    )
    assert chosen.note == ""
    full = selected("d2-pruning(beta=0.4)", scores, x, y, {"keep": 60})
    assert full.note.startswith("24 of those beyond the cutoff of 40 % were needed; ")
    assert "of 60 were picked when no number was above zero, where the order says little: a larger gamma_" in full.note
    hard_class = np.where(y == 1, 100 + scores, scores)
    assert np.bincount(
        y[selected("d2-pruning(beta=0.3333)", hard_class, x, y, {"per_class": 3}).positions]
    ).tolist() == [3, 3]


def test_ties_are_broken_by_the_seed():
    _, x = data(60)
    y = np.repeat([0, 1], [40, 20])
    by_seed = [
        selected("d2-pruning(neighbors=0, beta=0.0)", np.zeros(60), x, y, {"keep": 0.2}, seed=s).positions.tolist()
        for s in (0, 0, 1)
    ]
    assert by_seed[0] == by_seed[1] != by_seed[2]
    chosen = selected("d2-pruning(beta=0.0)", np.zeros(60), x, y, {"keep": 0.2})
    assert chosen.note.startswith("12 of 12 were picked when no number was above zero")
    assert set(chosen.reasons[chosen.positions]) == {"picked when no hard sample was left"}


def test_low_values_are_hard():
    scores, x = data(60)
    y = np.repeat([0, 1], [40, 20])
    as_value = selected("d2-pruning(beta=0.0)", -(scores - scores.min()), x, y, {"keep": 0.3}, "value")
    as_difficulty = selected("d2-pruning(beta=0.0)", scores - scores.min(), x, y, {"keep": 0.3})
    assert as_value.positions.tolist() == as_difficulty.positions.tolist()
