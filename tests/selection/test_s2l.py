import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.ledger import Ledger
from modicum.measurement import Traces
from modicum.methods import make
from modicum.scores import Budget
from modicum.selection import S2L, s2l
from modicum.selection.s2l import level  # type: ignore[attr-defined]
from modicum.training.recipe import Recipe


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(*sizes, columns=4):
    """Tight clusters far from one another."""
    of = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    return 10.0 * of[:, None] + 0.01 * rng.normal(size=(len(of), columns)), of


def test_counts_of_planted_clusters():
    rows, of = planted(5, 20, 100)
    kept = s2l(rows, 30, clusters=3, generator=draw())
    assert np.bincount(of[kept]).tolist() == [5, 12, 13]
    assert (np.diff(kept) > 0).all()
    assert s2l(rows, 1.0, clusters=3, generator=draw()).tolist() == list(range(125))


def test_sources_are_balanced_first():
    sources = np.repeat([7, 2, 4], [3, 50, 50])
    rows = np.random.default_rng(0).normal(size=(103, 3))
    kept = s2l(rows, 43, clusters=5, groups=sources, generator=draw())
    assert np.bincount(sources[kept])[[7, 2, 4]].tolist() == [3, 20, 20]


def test_tiny_clusters_come_last():
    rows, of = planted(1, 2, 10, 10)
    assert np.bincount(of[s2l(rows, 20, clusters=4, generator=draw())], minlength=4).tolist() == [0, 0, 10, 10]
    counts = np.bincount(of[s2l(rows, 22, clusters=4, generator=draw())], minlength=4)
    assert counts[2:].tolist() == [10, 10]
    assert counts[:2].sum() == 2


def test_order_of_the_checkpoints_does_not_matter():
    rows, _ = planted(8, 20, 30, columns=6)
    expected = s2l(rows, 25, clusters=3, generator=draw())
    assert np.array_equal(s2l(rows[:, ::-1].copy(), 25, clusters=3, generator=draw()), expected)
    assert not np.array_equal(s2l(rows, 25, clusters=3, generator=draw(1)), expected)


def test_kind_of_array_and_missing_losses():
    rows, of = planted(5, 20, 100)
    rows[of == 0, 1] = np.nan
    rows[of == 0, 0] = 0
    kept = s2l(torch.from_numpy(rows), 30, clusters=3, generator=draw())
    assert isinstance(kept, torch.Tensor)
    assert np.bincount(of[kept]).tolist() == [5, 12, 13]


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8), share=st.floats(0, 1))
def test_level_is_as_equal_as_can_be(sizes, share):
    budget = int(share * sum(sizes))
    given_ = level(np.array(sizes), budget)
    assert given_.sum() == budget
    assert (given_ <= sizes).all()
    for i, taken in enumerate(given_):  # who has more left got the most, up to one
        assert taken == sizes[i] or taken >= given_.max() - 1


@settings(max_examples=15, deadline=None)
@given(n=st.integers(5, 40), keep=st.floats(0.1, 1), clusters=st.integers(1, 5), values=st.integers(1, 6))
def test_gives_as_many_as_asked_with_equal_rows_too(n, keep, clusters, values):
    rows = np.random.default_rng(n).integers(0, values, (n, 2)).astype(float)
    kept = s2l(rows, keep, clusters=clusters, generator=draw())
    assert len(np.unique(kept)) == len(kept) == Budget(keep=keep).count(n)


@pytest.mark.parametrize(
    "rows, options, error, text",
    [
        (np.ones((4, 2)), {"clusters": 5}, DataError, "clusters=5; expected an integer from 1 to the 4 samples"),
        (np.ones((4, 2)), {"budget": 5}, BudgetError, "asks for 5 samples, but there are 4"),
        (np.ones(4), {}, DataError, r"trajectories has shape \(4,\); expected \(n, C\)"),
        (
            np.array([[1, np.nan], [1, np.nan]]),
            {"budget": 1},
            DataError,
            r"trajectories\[:, 1\] is nan for every sample",
        ),
        (np.array([[np.inf, 1], [1, 1]]), {"budget": 1}, DataError, r"trajectories\[:, 0\] is infinite for a sample"),
        (np.ones((4, 2)), {"groups": np.zeros(3, int)}, DataError, r"groups has shape \(3,\); expected \(4,\)"),
    ],
)
def test_errors_name_the_argument(rows, options, error, text):
    with pytest.raises(error, match=text):
        s2l(rows, **{"budget": 2, "clusters": 1, "generator": draw(), **options})


def test_one_checkpoint_is_warned_about():
    with pytest.warns(UserWarning, match="trajectories has one checkpoint"):
        s2l(np.arange(6.0)[:, None], 3, clusters=2, generator=draw())
    with pytest.raises(ModicumError, match="method 's2l' option clusters=0; expected an integer > 0"):
        make("s2l(clusters=0)")


def data(sources=None, n=60):
    x = torch.randn(n, 4, generator=draw())
    info = Info(classes=("a", "b", "c"), sources=() if sources is None else ("web", "book"))
    made = Dataset(x, x[:, :3].argmax(1), sources=sources, info=info)
    return Splits(made, made[:9], made[:9])


def test_the_method_reads_traces_of_a_small_model_and_balances_sources():
    sources = torch.tensor([0] * 50 + [1] * 10)
    splits, ctx = data(sources), Context(ledger=Ledger())
    method = S2L(clusters=4)
    (need,) = method.needs()
    assert need == Traces(1, 1.0, "small")
    table = need.measure(splits, Recipe(model="mlp(hidden=64)", epochs=3, batch_size=16), ctx)
    chosen = method.select(splits, Budget(keep=24), ctx, table)
    assert torch.bincount(sources[chosen.positions]).tolist() == [14, 10]
    assert len(chosen.reasons) == 60
    assert set(chosen.reasons) <= {f"cluster of {size}" for size in range(1, 51)}


def test_traces_of_a_small_model_cost_less_and_the_default_is_kept_where_it_was(tmp_path):
    splits, recipe = data(), Recipe(model="mlp(hidden=64)", epochs=3, batch_size=16)
    flops = {}
    for model in ("", "small", "mlp(hidden=8, layers=1)", "mlp(hidden=64)"):
        ctx = Context(ledger=Ledger(), cache=tmp_path)
        Traces(model=model).measure(splits, recipe, ctx)
        flops[model] = ctx.ledger.total().flops
    assert flops["small"] == flops["mlp(hidden=8, layers=1)"] < flops[""] == flops["mlp(hidden=64)"]
    assert len(list((tmp_path / "traces").iterdir())) == 2
