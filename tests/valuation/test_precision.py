"""How sure a share is, and how many of a ranking can be kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import DataError, ModicumError
from modicum.valuation import clopper_pearson, count_for_precision, precision_at


def binomial(n, p):
    from math import comb

    return np.array([comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


class TestClopperPearson:
    @pytest.mark.parametrize("n", [1, 7, 30])
    @pytest.mark.parametrize("level", [0.8, 0.95])
    def test_ends_solve_the_equations_that_define_them(self, n, level):
        for k in range(n + 1):
            low, high = clopper_pearson(k, n, level)
            alpha = (1 - level) / 2
            if k:
                assert binomial(n, low)[k:].sum() == pytest.approx(alpha, abs=1e-9)
            if k < n:
                assert binomial(n, high)[: k + 1].sum() == pytest.approx(alpha, abs=1e-9)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 25), st.floats(0.01, 0.99))
    def test_it_covers(self, n, p):
        chance = binomial(n, p)
        covered = sum(c for k, c in enumerate(chance) if clopper_pearson(k, n)[0] <= p <= clopper_pearson(k, n)[1])
        assert covered >= 0.95 - 1e-9
        missed = sum(c for k, c in enumerate(chance) if clopper_pearson(k, n, side="lower")[0] > p)
        assert missed <= 0.05 + 1e-9

    def test_nothing_known(self):
        assert clopper_pearson(0, 0) == (0.0, 1.0)
        assert clopper_pearson(3, 3, side="upper") == (0.0, 1.0)

    def test_wrong_arguments(self):
        with pytest.raises(ModicumError, match="good=3 of judged=2; expected 0 <= good <= judged"):
            clopper_pearson(3, 2)
        with pytest.raises(ModicumError, match=r"level=1.0; expected a confidence in \(0, 1\)"):
            clopper_pearson(1, 2, 1.0)
        with pytest.raises(ModicumError, match="side='left'; expected 'both', 'lower' or 'upper'"):
            clopper_pearson(1, 2, side="left")


class TestCount:
    def test_the_answer_misses_the_target_no_more_often_than_it_may(self):
        draw = np.random.default_rng(0)
        n, missed, found = 600, 0, 0
        for _ in range(300):
            truth = draw.random(n) < np.linspace(1.3, 0.1, n)  # that of the first falls below 0.9 past the half
            at = draw.permutation(n)[:150]
            cut = count_for_precision(-np.arange(n), at, truth[at].astype(int), 0.9, level=0.8)
            if cut is not None:
                found += 1
                missed += truth[: cut.count].mean() < 0.9
        assert found > 200
        assert missed / 300 <= 0.2

    def test_a_single_cut_is_the_plain_bound(self):
        labels = np.r_[np.ones(45, int), np.zeros(5, int)]
        cut = count_for_precision(np.zeros(50), np.arange(50), labels, 0.75, cuts=1)
        assert cut.low == clopper_pearson(45, 50, side="lower")[0]
        assert (cut.count, cut.judged, cut.good, cut.level) == (50, 50, 45, 0.95)

    def test_a_rejected_cut_hands_its_confidence_on(self):
        n = 400
        labels = np.ones(n, int)
        cut = count_for_precision(-np.arange(n), np.arange(n), labels, 0.9, cuts=4)
        assert cut.count == n
        assert cut.level == pytest.approx(0.95)

    def test_too_few_or_too_bad(self):
        assert count_for_precision(np.arange(20.0), np.arange(20), np.ones(20, int), 0.9) is None
        assert count_for_precision(np.arange(500.0), np.arange(500), np.arange(500) % 2, 0.9) is None

    def test_scores_only_matter_by_their_order(self):
        draw = np.random.default_rng(1)
        scores, at = draw.normal(size=300), draw.permutation(300)[:120]
        labels = (scores[at] > -0.5).astype(int)
        assert count_for_precision(scores, at, labels, 0.8) == count_for_precision(np.exp(scores), at, labels, 0.8)

    def test_wrong_arguments(self):
        scores, at, labels = np.arange(4.0), np.array([0, 1]), np.array([0, 1])
        with pytest.raises(ModicumError, match=r"target=1\.5; expected a share"):
            count_for_precision(scores, at, labels, 1.5)
        with pytest.raises(ModicumError, match="cuts=0; expected an integer >= 1"):
            count_for_precision(scores, at, labels, 0.5, cuts=0)
        with pytest.raises(DataError, match="at reaches 7; expected different positions below 4"):
            count_for_precision(scores, np.array([0, 7]), labels, 0.5)
        with pytest.raises(DataError, match="labels has the entry 2; expected 1 for good and 0 for bad"):
            count_for_precision(scores, at, np.array([0, 2]), 0.5)
        with pytest.raises(DataError, match=r"scores\[1\] is nan"):
            precision_at(1, np.array([0, np.nan]), np.array([0]), np.array([1]))
        with pytest.raises(DataError, match="count=9; expected an integer from 1"):
            precision_at(9, scores, at, labels)


def test_a_cut_without_judged_samples_knows_nothing():
    cut = precision_at(1, np.array([2.0, 1.0]), np.array([1]), np.array([1]))
    assert (cut.judged, cut.low, cut.high) == (0, 0.0, 1.0)
    assert np.isnan(cut.precision)
