"""Curves and detection, exact on small cases, and on digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modicum
from modicum.comparison.scoring import Curves, class_summaries, detection, keep_curves, true_labels
from modicum.context import Context
from modicum.data import corrupt_labels
from modicum.dataset import Dataset, Info
from modicum.errors import DataError
from modicum.ledger import Ledger
from modicum.scores import Scores


def scores_of(values: list[float], kind: str = "value", ids: list[int] | None = None) -> Scores:
    return Scores(np.array(values), np.array(ids or range(len(values))), "given", kind, "points")  # type: ignore[arg-type]


class TestDetection:
    def test_a_perfect_order(self) -> None:
        found = detection(scores_of([3, 2, 1, 0]), np.array([False, False, True, True]))
        assert found is not None
        assert (found.wrong, found.of, found.precision, found.auroc) == (2, 4, 1.0, 1.0)
        assert found.found == (0.0, 0.5, 1.0, 1.0, 1.0)
        assert found.inspected == (0.0, 0.25, 0.5, 0.75, 1.0)

    def test_difficulties_are_suspicious_when_high(self) -> None:
        found = detection(scores_of([0, 1, 2, 3], "difficulty"), np.array([False, False, True, True]))
        assert found is not None
        assert found.auroc == 1.0

    def test_ties_count_half(self) -> None:
        found = detection(scores_of([1, 1, 1, 1]), np.array([False, True, False, True]))
        assert found is not None
        assert found.auroc == 0.5

    @pytest.mark.parametrize("wrong", [[False] * 3, [True] * 3])
    def test_nothing_to_tell_apart(self, wrong: list[bool]) -> None:
        assert detection(scores_of([1, 2, 3]), np.array(wrong)) is None

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
    def test_auroc_is_that_of_scikit_learn(self, pairs: list[tuple[int, bool]]) -> None:
        from sklearn.metrics import roc_auc_score

        values, wrong = np.array([float(v) for v, _ in pairs]), np.array([w for _, w in pairs])
        found = detection(scores_of(values.tolist()), wrong)
        if found is not None:
            assert found.auroc == pytest.approx(roc_auc_score(wrong, -values), abs=1e-12)


class TestKeepCurves:
    def test_values_that_know_the_wrong_labels(self) -> None:
        data = modicum.load("digits")
        noisy, wrong = corrupt_labels(data.train, 0.3)
        noise = np.random.default_rng(0).random(len(noisy)) / 10
        given_scores = Scores(-wrong.double().numpy() + noise, noisy.ids, "given", "value", "points")
        ctx = Context(ledger=Ledger())
        curves = keep_curves(given_scores, data._replace(train=noisy), ctx)
        assert curves.shares[-1] == 1.0
        assert curves.best[-1] == curves.worst[-1] == pytest.approx(curves.random[-1])
        assert curves.gain() > 0.03
        assert curves.loss() < -0.2
        assert curves.metric == "accuracy"
        assert ctx.ledger.total("evaluate").seconds > 0
        assert ctx.ledger.total("choose").seconds == 0

    def test_the_same_seed_gives_the_same_curves(self) -> None:
        data = modicum.load("iris")
        given_scores = Scores(np.arange(90.0), data.train.ids, "given", "value", "points")
        assert keep_curves(given_scores, data, Context()) == keep_curves(given_scores, data, Context())

    def test_regression_gives_r2(self) -> None:
        data = modicum.load("diabetes")
        given_scores = Scores(np.arange(float(len(data.train))), data.train.ids, "given", "value", "points")
        curves = keep_curves(given_scores, data, Context())
        assert curves.metric == "R²"
        assert 0.2 < curves.best[-1] < 0.8

    def test_scores_of_other_samples(self) -> None:
        data = modicum.load("iris")
        with pytest.raises(DataError, match="ids that are not those of the 90 training samples"):
            keep_curves(scores_of([1.0, 2.0]), data, Context())

    def test_gain_of_a_constant_difference(self) -> None:
        curves = Curves((0.5, 1.0), (0.7, 0.8), (0.5, 0.6), (0.6, 0.7), (0.0, 0.0), "accuracy", "ridge")
        assert curves.gain() == pytest.approx(0.1)
        assert curves.loss() == pytest.approx(-0.1)


def test_class_summaries() -> None:
    train = Dataset(torch.zeros(4, 1), torch.tensor([0, 0, 1, 1]), info=Info(classes=("a", "b", "empty")))
    rows = class_summaries(scores_of([1.0, 3.0, -2.0, 6.0]), train)
    assert [row["class"] for row in rows] == ["a", "b"]
    assert rows[0]["mean"] == 2.0
    assert (rows[1]["least"], rows[1]["greatest"], rows[1]["in_last_tenth"]) == (-2.0, 6.0, 0.5)
    assert rows[0]["in_last_tenth"] == 0.0


def test_true_labels_come_by_id(tmp_path: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = f"{tmp_path}/labels.parquet"
    draw = np.random.default_rng(0)
    right = draw.integers(0, 2, 40)
    given_labels = np.where(draw.random(40) < 0.2, 1 - right, right)
    names = np.array(["cat", "dog"])
    columns = {"x": draw.random(40), "y": draw.random(40), "given": names[given_labels], "label": names[right]}
    columns["other"] = np.array(["fish", "bird"])[right]
    pq.write_table(pa.table(columns), path)
    options = {"inputs": ["x", "y"], "label": "given"}
    train = modicum.load(path, **options).train
    told = true_labels(path, train, "label", options)
    assert np.array_equal(told, right[train.ids])
    with pytest.raises(DataError, match="truth='other' has class 'bird', which the labels have not; expected cat, dog"):
        true_labels(path, train, "other", options)
