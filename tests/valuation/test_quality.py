"""A classifier of good and bad, learned from a few."""

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.methods import make
from modicum.valuation import best_judging, platt, quality_scores


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def task(n=400, d=6, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return rows, (rows[:, 0] + 0.3 * rows[:, 1] > 0.4).astype(int)


class TestPlatt:
    def test_it_is_at_the_least_of_its_loss(self):
        rng = np.random.default_rng(0)
        scores = rng.normal(size=300)
        labels = (rng.random(300) < 1 / (1 + np.exp(-(2 * scores - 1)))).astype(int)
        a, b = platt(scores, labels)
        n1 = labels.sum()
        target = np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (300 - n1 + 2))
        off = 1 / (1 + np.exp(-(a * scores + b))) - target
        assert abs(off.sum()) < 1e-3
        assert abs((off * scores).sum()) < 1e-3
        assert a == pytest.approx(2, abs=0.6)

    def test_scores_that_say_the_reverse_become_no_order(self):
        a, b = platt(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 1, 0, 0]))
        assert a == 0
        assert 1 / (1 + np.exp(-b)) == pytest.approx(0.5, abs=1e-4)

    def test_another_scale_of_the_scores_changes_nothing(self):
        scores, labels = np.random.default_rng(1).normal(size=50), np.random.default_rng(2).integers(0, 2, 50)
        (a, b), (c, d) = platt(scores, labels), platt(1000 * scores + 5, labels)
        assert np.allclose(a * scores + b, c * (1000 * scores + 5) + d, atol=1e-3)

    def test_wrong_shape(self):
        with pytest.raises(DataError, match="scores has shape"):
            platt(np.zeros(3), np.array([0, 1]))


class TestScores:
    @pytest.mark.parametrize("classifier", ["logistic", "forest", "auto"])
    @pytest.mark.parametrize("calibration", ["platt", "isotonic", "none"])
    def test_it_learns_what_is_good(self, classifier, calibration):
        rows, good = task()
        found = quality_scores(rows, np.arange(80), good[:80], classifier=classifier, calibration=calibration)
        assert found.probabilities.shape == (400,)
        assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
        assert ((found.scores[80:] > np.median(found.scores)) == good[80:]).mean() > 0.75
        order = np.argsort(found.scores)
        assert (np.diff(found.probabilities[order]) >= -1e-12).all()

    def test_judged_samples_are_scored_by_models_that_did_not_see_them(self):
        rng = np.random.default_rng(0)
        rows, labels = rng.normal(size=(60, 200)), rng.integers(0, 2, 60)  # nothing to learn, everything to remember
        found = quality_scores(rows, np.arange(60), labels, classifier="logistic")
        assert ((found.scores > 0) == labels).mean() < 0.75
        assert found.loss > 0.6

    def test_probabilities_are_right_on_average(self):
        rng = np.random.default_rng(3)
        rows = rng.normal(size=(3000, 2))
        chance = 1 / (1 + np.exp(-2 * rows[:, 0]))
        good = (rng.random(3000) < chance).astype(int)
        found = quality_scores(rows, np.arange(400), good[:400])
        assert np.abs(found.probabilities - chance)[400:].mean() < 0.06

    def test_tensors_and_arrays_are_alike(self):
        rows, good = task(100)
        a = quality_scores(rows, np.arange(40), good[:40], generator=draw())
        b = quality_scores(torch.from_numpy(rows), torch.arange(40), torch.from_numpy(good[:40]), generator=draw())
        assert np.array_equal(a.probabilities, b.probabilities)

    def test_a_table_beside_many_columns_of_noise_still_counts(self):
        rows, good = task(200, 2)
        noise = np.random.default_rng(5).normal(size=(200, 500))
        beside = quality_scores([rows, noise], np.arange(60), good[:60], classifier="logistic")
        within = quality_scores(np.c_[rows, noise], np.arange(60), good[:60], classifier="logistic")
        assert beside.loss < within.loss - 0.1

    def test_constant_columns_do_no_harm(self):
        rows, good = task(100)
        found = quality_scores(np.c_[rows, np.full(100, 1e9)], np.arange(50), good[:50])
        assert np.isfinite(found.probabilities).all()

    def test_wrong_arguments(self):
        rows, good = task(20)
        at = np.arange(10)
        with pytest.raises(
            DataError, match=r"labels: of 10 judged samples 10 are good and 0 bad; expected at least two"
        ):
            quality_scores(rows, at, np.ones(10, int))
        with pytest.raises(DataError, match="at reaches 30; expected different positions below 20"):
            quality_scores(rows, np.r_[at[:-1], 30], good[:10])
        with pytest.raises(DataError, match=r"rows\[0, 0\] is nan; expected finite numbers"):
            quality_scores(np.full((20, 2), np.nan), at, good[:10])
        with pytest.raises(DataError, match=r"rows has tables of \[20, 3\] rows"):
            quality_scores([rows, rows[:3]], at, good[:10])
        with pytest.raises(ModicumError, match="classifier='tree'; expected one of"):
            quality_scores(rows, at, good[:10], classifier="tree")
        with pytest.raises(ModicumError, match="calibration='none at all'; expected one of"):
            quality_scores(rows, at, good[:10], calibration="none at all")
        with pytest.raises(ModicumError, match="folds=1; expected an integer >= 2"):
            quality_scores(rows, at, good[:10], folds=1)
        with pytest.raises(ModicumError, match=r"strengths=\(\); expected numbers > 0"):
            quality_scores(rows, at, good[:10], strengths=())


def test_the_better_features_win():
    rows, good = task()
    name, found = best_judging(
        {"noise": rows[:, 3:], "signal": rows[:, :2]}, np.arange(80), good[:80], draw(), classifier="logistic"
    )
    assert name == "signal"
    alone = quality_scores(rows[:, :2], np.arange(80), good[:80], generator=draw(), classifier="logistic")
    assert found.loss == alone.loss


class TestMethod:
    def data(self):
        rows, good = task(120)
        train = Dataset(
            torch.from_numpy(rows).float(), ids=np.array([f"s{i}" for i in range(120)]), info=Info("unlabeled")
        )
        return Splits(train, train[:0], train[:0]), good

    def test_a_file_of_labels_scores_all(self, tmp_path):
        from modicum.verbs.scoring import score

        data, good = self.data()
        file = tmp_path / "judged.csv"
        file.write_text("id,label\n" + "".join(f"s{i},{'good' if good[i] else 'bad'}\n" for i in range(60)))
        method = make(f"quality(labels='{file}', encoder='inputs', classifier='logistic')")
        ctx = Context()
        scores = method.score(data, ctx, *(need.measure(data, None, ctx) for need in method.needs()))
        assert scores.kind == "value"
        assert "learned from 60 judged samples" in scores.note
        assert ((scores.values[60:] > 0.5) == good[60:]).mean() > 0.85
        assert ctx.ledger.total().labels == 60
        assert score(data, make(f"quality(labels='{file}', classifier='logistic')")).values.shape == (120,)

    def test_errors_name_the_file(self, tmp_path):
        data, _ = self.data()
        tables = [need.measure(data, None, Context()) for need in make("quality(encoder='inputs')").needs()]
        with pytest.raises(ModicumError, match="labels='' names no file"):
            make("quality(encoder='inputs')").score(data, Context(), *tables)
        file = tmp_path / "other.csv"
        file.write_text("id,label\n1,1\n2,0\n")
        with pytest.raises(
            DataError, match=r"other\.csv: none of its 2 ids, such as '1', is one of the training samples"
        ):
            make(f"quality(labels='{file}', encoder='inputs')").score(data, Context(), *tables)
        with pytest.raises(ModicumError, match="encoder='words'; expected one of"):
            make("quality(encoder='words')")
