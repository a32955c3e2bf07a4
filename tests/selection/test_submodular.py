import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.methods import make
from modicum.scores import Budget
from modicum.selection import facility_location, graph_cut, log_determinant
from modicum.selection.coverage import Coverage
from modicum.selection.facility_location import sparse_similarity
from modicum.selection.greedy import sample_size
from modicum.selection.kernels import kernel_of

FUNCTIONS = {"facility": facility_location, "cut": graph_cut, "volume": log_determinant}


def rows(n, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def matrix(n, d=4, seed=0, kernel="rbf"):
    return kernel_of("rows", rows(n, d, seed), kernel).whole().rows.numpy().copy()


def value(name, K, S, trade_off=2.0):
    S = list(S)
    if name == "facility":
        return K[:, S].max(1).sum() if S else 0.0
    if name == "cut":
        return trade_off * K[:, S].sum() - K[np.ix_(S, S)].sum()
    return np.linalg.slogdet(K[np.ix_(S, S)])[1] if S else 0.0


def naive(name, K, k):
    """Greedy from the value alone."""
    S, gains = [], []
    for _ in range(k):
        all_gains = [value(name, K, [*S, j]) - value(name, K, S) if j not in S else -np.inf for j in range(len(K))]
        S.append(int(np.argmax(all_gains)))
        gains.append(all_gains[S[-1]])
    return S, gains


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("method", ["lazy", "exact"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_greedy_by_the_value(name, method, seed):
    K = matrix(30, seed=seed)
    picks, gains = FUNCTIONS[name](K, 10, method)
    expected, their_gains = naive(name, K, 10)
    assert picks.tolist() == expected
    assert np.allclose(gains, their_gains, rtol=0, atol=1e-9)
    assert gains.sum() == pytest.approx(value(name, K, picks), abs=1e-9)


@pytest.mark.parametrize("name", ["facility", "cut"])
def test_reaches_its_share_of_the_best(name):
    for seed in range(10):
        K = matrix(10, seed=seed)
        best = max(value(name, K, S) for S in itertools.combinations(range(10), 3))
        assert FUNCTIONS[name](K, 3)[1].sum() >= (1 - 1 / math.e) * best


@pytest.mark.parametrize("name", FUNCTIONS)
@given(seed=st.integers(0, 1000), a=st.integers(0, 4), b=st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_gains_fall_as_the_set_grows(name, seed, a, b):
    K, order = matrix(12, seed=seed), np.random.default_rng(seed).permutation(12).tolist()
    small, large, j = order[:a], order[: a + b], order[-1]
    gain = [value(name, K, [*S, j]) - value(name, K, S) for S in (small, large)]
    assert gain[0] >= gain[1] - 1e-9


def test_graph_cut_of_everything():
    K = matrix(20)
    assert graph_cut(K, 20, trade_off=3.0)[1].sum() == pytest.approx((3 - 1) * K.sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lazy_equals_exact_where_the_matrix_is_put_aside(dtype, monkeypatch):
    K = matrix(700, 6, kernel="cosine").astype(dtype)
    aside = []
    shrunk = Coverage._shrunk
    monkeypatch.setattr(Coverage, "_shrunk", lambda self: aside.append(self.taken) or shrunk(self))
    lazy, exact = (facility_location(K, 120, method) for method in ("lazy", "exact"))
    assert len(aside) == 1
    assert lazy[0].tolist() == exact[0].tolist()
    assert np.allclose(lazy[1], exact[1], rtol=1e-5 if dtype == np.float32 else 1e-10)
    assert lazy[1].sum() == pytest.approx(K[lazy[0]].max(0).sum(dtype=float), rel=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kernel", ["cosine", "rbf"])
def test_features_equal_their_matrix(name, kernel):
    x = rows(60)
    K = kernel_of("x", x, kernel).whole().rows.numpy()
    ridge = {"ridge": 0.1} if name == "volume" else {}
    direct, by_matrix = (FUNCTIONS[name](a, 20, kernel=k, **ridge) for a, k in ((x, kernel), (K, "precomputed")))
    assert direct[0].tolist() == by_matrix[0].tolist()
    assert np.allclose(direct[1], by_matrix[1], atol=1e-8)


def test_kernels_by_definition():
    x = rows(15)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert np.allclose(matrix(15, kernel="cosine"), (1 + unit @ unit.T) / 2)
    apart = ((x[:, None] - x[None]) ** 2).sum(-1)
    assert np.allclose(matrix(15), np.exp(-apart / apart.mean()))
    for kernel in ("cosine", "rbf"):
        made = kernel_of("x", x, kernel)
        assert np.allclose(made.sums(), matrix(15, kernel=kernel).sum(1))
        assert np.allclose(made.diagonal, 1)


def test_rows_of_zeros_have_a_cosine_of_zero():
    x = np.vstack([np.zeros((2, 3)), rows(6, 3)])
    K = kernel_of("x", x, "cosine").whole().rows
    assert (K[0] == 0.5).all()
    assert len(set(facility_location(x, 8)[0].tolist())) == 8


def test_with_a_ridge_it_is_the_determinant_of_the_sum():
    K = matrix(25)
    picks, gains = log_determinant(K, 10, ridge=0.3)
    S = picks.tolist()
    assert gains.sum() == pytest.approx(np.linalg.slogdet(K[np.ix_(S, S)] + 0.3 * np.eye(10))[1])
    assert naive("volume", K + 0.3 * np.eye(25), 10)[0] == S


def test_a_set_that_explains_everything_is_filled_with_a_warning():
    with pytest.warns(UserWarning, match="4 picks explain every sample, the other 2 are the first that are left"):
        picks, gains = log_determinant(rows(12, 3), 6, kernel="cosine")
    assert len(set(picks.tolist())) == 6
    assert np.isneginf(gains[4:]).all()
    left = sorted(set(range(12)) - set(picks[:4].tolist()))
    assert picks[4:].tolist() == left[:2]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stochastic_is_near_and_repeats(name):
    K = matrix(300, 8)
    runs = [FUNCTIONS[name](K, 30, "stochastic", generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert runs[0][0].tolist() == runs[1][0].tolist()
    assert len(set(runs[0][0].tolist())) == 30
    best = FUNCTIONS[name](K, 30)[1].sum()
    slack = 0.1 * abs(best)
    assert best + 1e-9 >= runs[0][1].sum() - slack
    assert runs[0][1].sum() >= best - slack


def test_epsilon_of_nine_tenths_is_a_random_set():
    """One candidate a pick: hardly better than chance, where 0.01 is hardly worse than all."""
    K, draw = matrix(400, 6, kernel="rbf"), np.random.default_rng(0)
    assert sample_size(400, 20, 0.9) == 3
    best = facility_location(K, 20)[1].sum()
    loose, tight = (
        np.mean(
            [
                facility_location(K, 20, "stochastic", epsilon=e, generator=torch.Generator().manual_seed(s))[1].sum()
                for s in range(8)
            ]
        )
        for e in (0.9, 0.01)
    )
    chance = np.mean([value("facility", K, draw.permutation(400)[:20]) for _ in range(50)])
    assert chance < loose < tight <= best
    assert best - tight < 0.2 * (best - loose)


def test_approximate_keeps_its_promise():
    K = matrix(200)
    best, near = (facility_location(K, 20, method)[1].sum() for method in ("lazy", "approximate"))
    assert near >= (1 - math.exp(-0.9)) / (1 - 1 / math.e) * best


def test_ties_go_to_the_lowest_and_nothing_to_gain_to_the_first_left():
    assert facility_location(np.ones((5, 5)), 3)[0].tolist() == [0, 1, 2]
    twins = np.kron(np.eye(3), np.ones((2, 2)))
    picks, gains = facility_location(twins, 5)
    assert picks.tolist() == [0, 2, 4, 1, 3]
    assert gains.tolist() == [2, 2, 2, 0, 0]
    assert graph_cut(twins, 3)[0].tolist() == [0, 2, 4]


def test_smaller_is_a_prefix():
    K = matrix(80)
    for function in FUNCTIONS.values():
        assert function(K, 20)[0][:8].tolist() == function(K, 8)[0].tolist()


def test_neighbors():
    x = rows(300, 6)
    sparse = sparse_similarity(kernel_of("x", x, "cosine"), 12)
    dense = sparse.toarray()
    assert ((dense > 0).sum(1) == 13).all()
    K = kernel_of("x", x, "cosine").whole().rows.numpy()
    assert np.abs(dense - K)[dense > 0].max() < 1e-12
    picks, gains = facility_location(x, 40, neighbors=12)
    expected, their_gains = naive("facility", dense, 40)
    assert picks.tolist() == expected
    assert np.allclose(gains, their_gains)
    assert facility_location(sparse, 40)[0].tolist() == expected
    # all neighbors are the whole matrix
    assert facility_location(x, 40, neighbors=299)[0].tolist() == facility_location(x, 40)[0].tolist()


def test_sparse_similarities_with_rows_of_zeros_are_those_of_the_matrix():
    x = rows(40, 3)
    x[:3] = 0
    made = kernel_of("x", x, "cosine")
    assert np.allclose(sparse_similarity(made, 39).toarray(), made.whole().rows.numpy(), atol=1e-12)


def test_lazy_and_exact_break_ties_that_rounding_hides_alike():
    draw = np.random.default_rng(1)
    for _ in range(4):
        x = draw.integers(0, 3, size=(600, 5)).astype(np.float32) + np.float32(0.1)
        lazy, exact = (facility_location(x, 60, method, kernel="rbf")[0] for method in ("lazy", "exact"))
        assert lazy.tolist() == exact.tolist()


def test_cuts_of_many_samples_are_the_same_in_single_precision():
    x = rows(5000, 16).astype(np.float32)
    single, double = (set(graph_cut(kind, 300)[0].tolist()) for kind in (x, x.astype(float)))
    assert len(single & double) > 0.95 * 300


def test_a_matrix_may_be_a_view_turned_around():
    K = matrix(20)
    assert facility_location(K[::-1, ::-1], 5)[0].tolist() == (facility_location(K[::-1, ::-1].copy(), 5)[0]).tolist()


def test_the_kind_that_came_goes_back():
    x = rows(20)
    for function in FUNCTIONS.values():
        ridge = {"ridge": 0.1} if function is log_determinant else {}
        one, two = function(x, 5, **ridge), function(torch.from_numpy(x), 5, **ridge)
        assert isinstance(one[0], np.ndarray)
        assert isinstance(two[1], torch.Tensor)
        assert one[0].tolist() == two[0].tolist()


class TestDeepCore:
    def test_facility_location_sums_the_first_rows_alone(self):
        K = matrix(400)
        ours = facility_location(K, 10, deepcore_compat=True)
        best, picks = np.zeros(400), []
        for _ in range(10):
            gains = np.maximum(K[:256] - best[:256, None], 0).sum(0)
            picks.append(int(gains.argmax()))
            best = np.maximum(best, K[picks[-1]])
        assert ours[0].tolist() == picks
        assert value("facility", K, ours[0]) < value("facility", K, facility_location(K, 10)[0])

    def test_graph_cut_without_the_diagonal_goes_on_with_negative_gains(self):
        K = matrix(30) * np.outer(*[np.linspace(1, 3, 30)] * 2)
        picks, gains = graph_cut(K, 30, trade_off=1.0, deepcore_compat=True)
        S = picks[:4].tolist()
        assert gains[4] == pytest.approx(K[:, picks[4]].sum() - 2 * K[S, picks[4]].sum())
        assert (gains < 0).any()
        assert picks.tolist() != graph_cut(K, 30, trade_off=1.0)[0].tolist()

    def test_log_determinant_picks_the_most_redundant(self):
        K = matrix(30)
        picks, gains = log_determinant(K, 6, deepcore_compat=True)
        S = picks[:5].tolist()
        others = [j for j in range(30) if j not in S]
        explained = np.einsum("ij,ij->j", K[S][:, others], np.linalg.pinv(K[np.ix_(S, S)]) @ K[S][:, others])
        assert picks[5] == others[int(explained.argmax())]
        assert gains[5] == pytest.approx(explained.max())
        assert value("volume", K, picks) < value("volume", K, log_determinant(K, 6)[0]) - 1


@pytest.mark.parametrize("function", [facility_location, graph_cut])
@pytest.mark.parametrize(
    "array, options, error, text",
    [
        (np.eye(3), {"budget": 4}, BudgetError, "asks for 4 samples, but there are 3"),
        (np.eye(3) - 0.5, {}, DataError, "has the entry -0.5; expected similarities >= 0.*say kernel='cosine'"),
        (np.arange(9.0).reshape(3, 3), {}, DataError, "is not symmetric: entries differ .* by up to 4"),
        (np.full((3, 3), np.nan), {}, DataError, "is nan|holds nan"),
        (np.ones((3, 2)), {"kernel": "precomputed"}, DataError, r"has shape \(3, 2\); expected \(n, n\)"),
        (np.ones((3, 2)), {"kernel": "linear"}, DataError, "kernel='linear'; expected None"),
        (np.full((3, 2), np.inf), {}, DataError, r"similarity_or_features\[0, 0\] is inf"),
        (np.ones(4), {"kernel": "precomputed"}, DataError, r"has shape \(4,\)"),
        (np.eye(3) * 1e200, {"kernel": "rbf"}, DataError, r"reaches .*, whose squares overflow"),
        (np.eye(3), {"budget": "1/class"}, BudgetError, "budget=1/class is per class, but no classes are given here"),
        (np.eye(3), {"method": "fast"}, ModicumError, "method='fast'; expected one of"),
        (np.eye(3), {"epsilon": 1.0}, ModicumError, r"epsilon=1.0; expected a number in \(0, 1\)"),
        (np.eye(3), {"epsilon": 0}, ModicumError, r"epsilon=0; expected a number in \(0, 1\)"),
        (np.eye(3), {"method": "stochastic"}, ModicumError, "generator=None; expected a torch.Generator"),
    ],
)
def test_errors(function, array, options, error, text):
    with pytest.raises(error, match=text):
        function(array, **{"budget": 1, **options})


def test_errors_of_one():
    with pytest.raises(DataError, match="trade_off=0; expected a number > 0"):
        graph_cut(np.eye(3), 1, trade_off=0)
    with pytest.raises(DataError, match="ridge=-1; expected a number >= 0"):
        log_determinant(np.eye(3), 1, ridge=-1)
    with pytest.raises(DataError, match="not positive semidefinite"):
        log_determinant(np.array([[1.0, 2.0], [2.0, 1.0]]), 2)
    with pytest.raises(DataError, match="neighbors=-1; expected an integer >= 0"):
        facility_location(rows(5), 1, neighbors=-1)
    with pytest.raises(ModicumError, match="beta=2; expected a number in"):
        facility_location(rows(5), 1, beta=2)
    for text in ("facility-location(kernel='linear')", "graph-cut(trade_off=0)", "log-determinant(optimizer='x')"):
        with pytest.raises(ModicumError, match="expected"):
            make(text)


class TestMethods:
    def splits(self, n=120):
        draw = np.random.default_rng(0)
        targets = torch.from_numpy(np.arange(n) % 3)
        data = Dataset(
            torch.from_numpy(draw.normal(size=(n, 5)).astype(np.float32)), targets, info=Info(classes=("a", "b", "c"))
        )
        return Splits(data, data[:9], data[:9])

    @pytest.mark.parametrize("key", ["facility-location", "graph-cut", "log-determinant"])
    def test_class_by_class_with_gains_and_reasons(self, key):
        data, method = self.splits(), make(f"{key}(encoder='inputs')")
        table = method.needs()[0].measure(data, None, Context())
        chosen = method.select(data, Budget(per_class=5), Context(), table)
        assert np.bincount(data.train.targets[chosen.positions]).tolist() == [5, 5, 5]
        members = np.flatnonzero(data.train.targets.numpy() == 1)
        function = {"f": facility_location, "g": graph_cut, "l": log_determinant}[key[0]]
        ridge = {"ridge": 0.01} if key[0] == "l" else {}
        picks, gains = function(table.train[members], 5, **ridge)
        assert set(members[picks]) <= set(chosen.positions.tolist())
        assert np.allclose(chosen.values[members[picks]], gains)
        assert np.isnan(np.delete(chosen.values, chosen.positions)).all()
        assert chosen.reasons[members[picks[0]]] == "pick 1 of 5 of b"
        other = chosen.reasons[np.setdiff1d(members, chosen.positions)[0]]
        assert other.startswith("stood for by ") == (key == "facility-location")

    @pytest.mark.parametrize("kernel", ["cosine", "rbf"])
    def test_each_is_stood_for_by_the_most_similar_pick(self, kernel):
        data, method = self.splits(), make(f"facility-location(encoder='inputs', kernel='{kernel}', per_class=False)")
        table = method.needs()[0].measure(data, None, Context())
        chosen = method.select(data, Budget(keep=11), Context(), table)
        K = kernel_of("rows", table.train, kernel).whole().rows.numpy()
        for at in np.setdiff1d(np.arange(len(K)), chosen.positions):
            by = chosen.positions[K[at, chosen.positions].argmax()]
            alike = 2 * K[at, by] - 1 if kernel == "cosine" else K[at, by]
            word = "cosine" if kernel == "cosine" else "similarity"
            assert chosen.reasons[at] == f"stood for by {data.train.ids[by]}, {word} {alike:.2f}"

    @pytest.mark.parametrize(
        "text, expected",
        [
            ("facility-location", 3 * 2 * 40 * 40 * 5),
            ("graph-cut", 3 * 2 * 40 * 5 * (10 + 2)),
            ("graph-cut(kernel='rbf')", 3 * 2 * 40 * 5 * (10 + 40)),
            ("log-determinant", 3 * 40 * 10 * (2 * 5 + 10)),
        ],
    )
    def test_the_charge_is_that_of_what_is_computed(self, text, expected):
        data, ctx, method = self.splits(), Context(), make(text)
        table = make("herding(encoder='inputs')").needs()[0].measure(data, None, Context())
        method.select(data, Budget(per_class=10), ctx, table)
        assert ctx.ledger.total("choose").extra_flops == expected

    def test_not_by_class(self):
        data, method = self.splits(), make("facility-location(encoder='inputs', per_class=False)")
        table = method.needs()[0].measure(data, None, Context())
        chosen = method.select(data, Budget(keep=11), Context(), table)
        assert sorted(facility_location(table.train, 11)[0].tolist()) == chosen.positions.tolist()

    @pytest.mark.parametrize("optimizer", ["exact", "stochastic", "approximate"])
    def test_optimizers(self, optimizer):
        data, method = self.splits(), make(f"facility-location(encoder='inputs', optimizer='{optimizer}')")
        table = method.needs()[0].measure(data, None, Context())
        assert len(method.select(data, Budget(keep=0.25), Context(), table)) == 30
