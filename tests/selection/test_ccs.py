import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.methods import make
from modicum.scores import Budget, Scores
from modicum.selection import ccs, cutoff_of
from modicum.selection.ccs import _sequence


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def strata_of(scores, kept_after_cut, bins):
    """Equal-width strata, the highest score in the last."""
    low, high = scores[kept_after_cut].min(), scores[kept_after_cut].max()
    return np.minimum(((scores - low) / (high - low) * bins).astype(int), bins - 1)


def published(counts, k):
    """The allocation of the paper: from the smallest stratum on, an even share of what is left."""
    order, rest, budgets = np.argsort(counts, kind="stable"), k, np.zeros(len(counts), int)
    for place, stratum in enumerate(order):
        budgets[stratum] = min(counts[stratum], rest // (len(counts) - place))
        rest -= budgets[stratum]
    return budgets


@settings(max_examples=80, deadline=None)
@given(n=st.integers(2, 200), bins=st.integers(1, 12), share=st.floats(0.01, 1), seed=st.integers(0, 10_000))
def test_strata_get_what_the_paper_gives_them_and_the_most_even_parts(n, bins, share, seed):
    scores = np.random.default_rng(seed).exponential(size=n)
    kept = ccs(scores, share, 0.0, bins, generator=seeded(seed))
    k = Budget(keep=share).count(n)
    assert len(np.unique(kept)) == len(kept) == k
    strata = strata_of(scores, np.arange(n), bins)
    counts, budgets = (np.bincount(part, minlength=bins) for part in (strata, strata[kept]))
    assert budgets.tolist() == published(counts, k).tolist()
    assert budgets.sum() == min(k, counts.sum())
    for spare in np.flatnonzero(budgets < counts):
        assert (budgets <= budgets[spare] + 1).all()


def test_the_hardest_are_cut():
    scores = np.random.default_rng(0).normal(size=200)
    kept = ccs(scores, 100, beta=0.3, bins=10)
    assert scores[kept].max() <= np.sort(scores)[139]
    inside = np.argsort(scores)[:140]
    counts = np.bincount(strata_of(scores, inside, 10)[inside], minlength=10)
    assert np.bincount(strata_of(scores, inside, 10)[kept], minlength=10).tolist() == published(counts, 100).tolist()


def test_one_stratum_is_a_uniform_subset_after_the_cut():
    scores = np.arange(40.0)
    times = np.zeros(40)
    for seed in range(2000):
        times[ccs(scores, 10, beta=0.25, bins=1, generator=seeded(seed))] += 1
    assert (times[30:] == 0).all()
    expected = 2000 * 10 / 30
    # (n - 1) / n chi-square with 29 degrees of freedom for draws without replacement: 99.9 % of it lies below 58.3
    spread = ((times[:30] - expected) ** 2).sum() / (expected * (1 - 10 / 30))
    assert spread * 29 / 30 < 58.3


def test_equal_scores_are_one_stratum_and_ties_at_the_cut_are_broken_at_random():
    cut = [
        set(range(20)) - set(ccs(np.ones(20), 15, beta=0.25, bins=5, generator=seeded(s)).tolist()) for s in range(9)
    ]
    assert all(len(c) == 5 for c in cut)
    assert len(set(map(frozenset, cut))) > 5


def test_infinite_scores_are_the_hardest():
    scores = np.array([0.0] * 10 + [4.0] * 5 + [np.inf] * 5)
    assert ccs(scores, 15, beta=0.25).tolist() == list(range(15))
    kept = ccs(scores, 6, bins=3)
    assert [(kept < 10).sum(), ((kept >= 10) & (kept < 15)).sum() + (kept >= 15).sum()] == [3, 3]


def test_the_range_may_be_as_large_as_numbers_go():
    assert ccs(np.array([-1.7e308, 0.0, 1.7e308, 5.0, 6.0]), 3).tolist()[::2] == [0, 2]


def test_a_smaller_budget_is_part_of_a_larger_one():
    scores = np.random.default_rng(1).normal(size=60)
    for k in range(1, 54):
        assert set(ccs(scores, k, 0.1, 7)) < set(ccs(scores, k + 1, 0.1, 7))


def test_class_floors_and_budgets_per_class():
    scores, y = np.arange(50.0), np.repeat([0, 1], [45, 5])
    kept = ccs(scores, 10, 0.1, 5, targets=y)
    assert (y[kept] == 1).sum() == 0
    kept = ccs(scores, 10, 0.1, 5, targets=y, class_balance=0.6)
    assert (y[kept] == 1).sum() == 3
    assert kept[-3:].tolist() == [45, 46, 47], "of those cut the least hard"
    assert np.bincount(y[ccs(scores, "4/class", 0.2, 5, targets=y)]).tolist() == [4, 4]


def test_same_kind_seed_and_no_writes():
    scores = np.random.default_rng(0).normal(size=50)
    scores.flags.writeable = False
    kept = ccs(torch.from_numpy(scores.copy()), 20, 0.1, 5)
    assert isinstance(kept, torch.Tensor)
    assert kept.tolist() == ccs(scores, 20, 0.1, 5).tolist() == ccs(scores, 20, 0.1, 5, generator=seeded()).tolist()
    assert kept.tolist() != ccs(scores, 20, 0.1, 5, generator=seeded(1)).tolist()


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda s: ccs(s, 15, 0.4), BudgetError, "beta=0.4 cuts 8 of 20 samples, which leaves fewer than the 15 asked"),
        (
            lambda s: ccs(s, "4/class", 0.3, targets=np.repeat([0, 1], [15, 5])),
            BudgetError,
            "beta=0.3 cuts 2 of 5 samples of class 1, which leaves fewer than the 4 asked",
        ),
        (lambda s: ccs(s, 21), BudgetError, "asks for 21 samples, but there are 20"),
        (lambda s: ccs(s, 5, 1.0), DataError, r"beta=1.0; expected a share of the samples in \[0, 1\)"),
        (lambda s: ccs(s, 5, float("nan")), DataError, "beta=nan"),
        (lambda s: ccs(s, 5, 0.0, 0), DataError, "bins=0; expected an integer >= 1"),
        (lambda s: ccs(s, 5, 0.0, 2.5), DataError, "bins=2.5"),
        (lambda s: ccs(s * np.nan, 5), DataError, r"scores\[0\] is nan"),
        (lambda s: ccs(s, "2/class"), DataError, r"targets is None; expected \(n,\) class indices"),
        (lambda s: ccs(s, 5, targets=np.zeros(3, int)), DataError, r"targets has shape \(3,\); expected \(20,\)"),
        (lambda s: make("ccs(bins=0)"), ModicumError, "option bins=0; expected an integer > 0"),
        (lambda s: make("ccs(beta=1.5)"), ModicumError, r"option beta=1.5; expected None, 'negative' or a number"),
        (lambda s: make("ccs(beta='x')"), ModicumError, "option beta='x'"),
        (lambda s: make("ccs(score='herding')"), ModicumError, "score='herding' gives no scores"),
    ],
)
def test_errors_name_the_argument(call, error, text):
    with pytest.raises(error, match=text):
        call(np.arange(20.0))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 1))
def test_the_cutoff_of_the_paper_always_leaves_enough(keep):
    assert 0 <= cutoff_of(keep) <= 1 - keep + 1e-12
    assert cutoff_of(keep) <= 0.3


def of_method(method, values, budget, kind="value", labels=None):
    n = len(values)
    y = torch.zeros(n, dtype=torch.int64) if labels is None else torch.from_numpy(labels)
    train = Dataset(torch.zeros(n, 1), y, info=Info(classes=("a", "b")))
    scores = Scores(values, train.ids, "x", kind, "points", y.numpy())
    return method.select(Splits(train, train, train), Budget(keep=budget), Context(), scores)


def test_the_method_cuts_the_low_end_of_a_value_by_the_pruning_rate():
    chosen = of_method(make("ccs(bins=10)"), np.arange(200.0), 0.1)
    assert len(chosen) == 20
    assert chosen.positions.min() >= 60
    assert chosen.reasons[:60].tolist() == ["harder than the cutoff of 30 %"] * 60
    assert chosen.reasons[60] == "stratum 10 of 10"
    assert chosen.reasons[199] == "stratum 1 of 10"
    assert chosen.note == ""


def test_what_is_below_zero_is_cut():
    values = np.linspace(-1, 3, 200)
    chosen = of_method(make("ccs(beta='negative', bins=10)"), values, 0.1)
    assert len(chosen) == 20
    assert ((chosen.reasons == "harder than the cutoff of 25 %") == (values < 0)).all()
    assert (values[chosen.positions] >= 0).all()
    assert len(of_method(make("ccs(beta='negative')"), -1 - values**2, 0.1)) == 20
    assert (
        of_method(make("ccs(beta='negative')"), values, 0.8).note == "10 of those beyond the cutoff of 25 % were needed"
    )
    with pytest.raises(DataError, match="beta='negative' needs a score that is a value, such as aum, but x is a diff"):
        of_method(make("ccs(beta='negative')"), values, 0.1, "difficulty")


def test_a_cutoff_that_leaves_too_few_is_filled_up_with_the_least_hard_and_told():
    chosen = of_method(make("ccs(beta=0.5)"), np.arange(20.0), 0.75)
    assert chosen.positions.tolist() == list(range(5, 20))
    assert chosen.note == "5 of those beyond the cutoff of 50 % were needed"
    assert len(of_method(make("ccs(beta=0.99)"), np.arange(20.0), 1)) == 1


def test_the_sequence_has_everyone_once():
    sequence, strata = _sequence(np.random.default_rng(0).normal(size=100), 30, 5, seeded())
    assert sorted(sequence) == list(range(100))
    assert (strata == -1).sum() == 30
    assert (strata[sequence[:70]] >= 0).all()
