import time

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError
from modicum.measurement import FeatureTable
from modicum.store import Store
from modicum.valuation import DataOob, data_oob, data_oob_of


def problem(n=60, seed=0):
    x, y = make_classification(n, 6, n_informative=4, n_classes=3, random_state=seed)
    return x, y


def by_loops(ensemble, x, y):
    total, count = np.zeros(len(x)), np.zeros(len(x))
    for tree, drawn in zip(ensemble.estimators_, ensemble.estimators_samples_):
        for i in range(len(x)):
            if i not in drawn:
                total[i] += float(tree.predict(x[i : i + 1])[0] == y[i])
                count[i] += 1
    return total / count


@pytest.mark.parametrize("kind", ["stumps", "forest", "subspaces"])
def test_equals_loops_over_the_samples_of_an_ensemble(kind):
    x, y = problem(40)
    if kind == "forest":
        ensemble = RandomForestClassifier(25, random_state=0)
    else:
        columns = 0.5 if kind == "subspaces" else 1.0
        stump = DecisionTreeClassifier(max_depth=1, random_state=0)
        ensemble = BaggingClassifier(stump, 25, max_features=columns, random_state=0)
    ensemble.fit(x, y)
    if kind == "subspaces":
        picked = zip(ensemble.estimators_, ensemble.estimators_features_)
        expected = np.array([tree.predict(x[:, columns]) == y for tree, columns in picked])
        out = np.array([~np.isin(np.arange(40), drawn) for drawn in ensemble.estimators_samples_])
        wanted = (expected * out).sum(0) / out.sum(0)
    else:
        wanted = by_loops(ensemble, x, y)
    np.testing.assert_allclose(data_oob_of(ensemble, x, y)[0], wanted, atol=1e-15)


def test_of_a_regression_forest():
    x, y = problem()[0], np.random.default_rng(0).normal(size=60)
    forest = RandomForestRegressor(30, random_state=0).fit(x, y)
    answers = np.array([tree.predict(x) for tree in forest.estimators_])
    out = np.array([~np.isin(np.arange(60), drawn) for drawn in forest.estimators_samples_])
    wanted = -(((answers - y) ** 2) * out).sum(0) / out.sum(0)
    np.testing.assert_allclose(data_oob_of(forest, x, y)[0], wanted, rtol=1e-12)


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("columns", ["sqrt", "all"])
def test_equals_its_own_trees_one_by_one(regression, columns):
    x, y = problem()
    y = x[:, 0] + y if regression else y
    scores = [[] for _ in range(60)]
    for b in range(30):
        draw = generator(5, "data-oob", b)
        drawn = torch.randint(60, (60,), generator=draw).numpy()
        state = int(torch.randint(2**31, (1,), generator=draw))
        kind = DecisionTreeRegressor if regression else DecisionTreeClassifier
        tree = kind(random_state=state, max_features="sqrt" if columns == "sqrt" and not regression else None)
        times = np.bincount(drawn, minlength=60)
        tree.fit(x[times > 0], y[times > 0], sample_weight=times[times > 0])
        for i in np.flatnonzero(times == 0):
            answer = tree.predict(x[i : i + 1])[0]
            scores[i].append(-((answer - y[i]) ** 2) if regression else float(answer == y[i]))
    values, errors = data_oob(x, y, 30, regression=regression, max_features=columns, seed=5)
    np.testing.assert_allclose(values, [np.mean(s) for s in scores], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(errors, [np.std(s, ddof=1) / len(s) ** 0.5 for s in scores], rtol=1e-6, atol=1e-9)


def test_threads_change_nothing():
    x, y = problem()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = data_oob(x, y, 40)
        torch.set_num_threads(2)
        two = data_oob(x, y, 40)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


def test_more_trees_until_everybody_was_out():
    x, y = problem(200)
    values, errors = data_oob(x, y, 1)
    assert np.isfinite(values).all()
    assert (errors >= 0).all()


def test_standard_errors_are_those_of_repetitions():
    x, y = problem(40)
    many = [data_oob(x, y, 40, seed=s) for s in range(12)]
    spread = np.std([values for values, _ in many], 0, ddof=1)
    assert np.mean([errors for _, errors in many]) == pytest.approx(spread.mean(), rel=0.25)


def splits(regression=False):
    x, y = problem()
    targets = torch.from_numpy(x[:, 0] * 3 + 1).float() if regression else torch.from_numpy(y)
    info = Info("regression", target_mean=1.0, target_std=3.0) if regression else Info(classes=("a", "b", "c"))
    data = Dataset(torch.from_numpy(x).float(), targets, info=info)
    return Splits(data, data[:5], data[:5]), FeatureTable(data.inputs, data.inputs[:5])


def test_of_a_regression():
    data, table = splits(regression=True)
    scores = DataOob(trees=20).score(data, Context(), table)
    assert scores.unit == "squared target"
    assert scores.labels is None
    wanted = data_oob(data.train.inputs.double(), data.train.prepare_targets(), 20, regression=True)
    np.testing.assert_allclose(scores.values, wanted[0].numpy())


def test_stops_at_the_deadline_and_goes_on_from_there(tmp_path):
    data, table = splits()
    method = DataOob(trees=80)
    straight = method.score(data, Context(), table)
    late = Context(store=Store(tmp_path), deadline=time.monotonic() - 1)
    first = method.score(data, late, table)
    assert first.note.startswith("stopped after ")
    assert first.note.endswith(" of 80 trees")
    assert np.isfinite(first.values).all()
    again = method.score(data, Context(store=Store(tmp_path)), table)
    assert np.array_equal(again.values, straight.values)
    assert np.array_equal(again.errors, straight.errors)
    assert again.note == ""


def test_same_kind_and_dtype_and_no_writes():
    x, y = (torch.from_numpy(a) for a in problem())
    before = x.clone()
    values, errors = data_oob(x.float(), y, 20)
    assert values.dtype == errors.dtype == torch.float32
    assert torch.equal(x, before)


X, Y = problem(10)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: data_oob(X, Y, 0), "trees=0; expected an integer >= 1"),
        (lambda: data_oob(X, Y[:5]), r"targets has shape \(5,\)"),
        (lambda: data_oob(X[:1], Y[:1]), "features has 1 row; expected at least 2"),
        (lambda: data_oob(X, Y, max_features="log2"), "max_features='log2'; expected 'sqrt' or 'all'"),
        (lambda: data_oob(X, np.full(10, np.nan), regression=True), r"targets\[0\] is nan"),
        (lambda: data_oob(X, np.ones(5), regression=True), r"targets has shape \(5,\); expected \(10,\)"),
        (lambda: data_oob(np.full((3, 1), 1e39), Y[:3]), "larger than single precision"),
        (lambda: data_oob_of(DecisionTreeClassifier().fit(X, Y), X, Y), "ensemble is a DecisionTreeClassifier"),
        (
            lambda: data_oob_of(BaggingClassifier(n_estimators=3, bootstrap=False).fit(X, Y), X, Y),
            "10 samples are in all 0 bootstrap samples, first at 0; use more trees, drawn with replacement",
        ),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(DataError, match=text):
        call()
