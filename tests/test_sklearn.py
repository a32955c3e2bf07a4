import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import modicum
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.sklearn import DataValuer, InputError
from modicum.training.recipe import Recipe
from modicum.valuation import KnnShapley, knn_shapley

X, Y = load_iris(return_X_y=True)
TRAIN, VALID = (X[::2], Y[::2]), (X[1::2], Y[1::2])


@pytest.fixture(scope="module")
def fitted():
    return DataValuer("knn-shapley(k=3)").fit(*TRAIN, *VALID)


class Frame:
    """What a data frame has of what is used here."""

    def __init__(self, table, names):
        self.table, self.columns = np.asarray(table), np.array(names, dtype=object)
        self.shape, self.dtypes = self.table.shape, [self.table.dtype] * len(names)
        self.iloc = self

    def __array__(self, dtype=None, copy=None):
        return np.array(self.table, dtype=dtype)

    def __getitem__(self, at):
        return Frame(self.table[at], self.columns)

    def __len__(self):
        return len(self.table)


@pytest.mark.filterwarnings("ignore")
def test_passes_all_checks_of_scikit_learn():
    results = check_estimator(DataValuer(), on_skip=None)
    assert len(results) > 30
    assert {result["status"] for result in results} <= {"passed", "skipped"}


def test_parameters_and_clones():
    valuer = DataValuer(KnnShapley(k=2), valid=0.3, recipe=Recipe(epochs=1), random_state=4)
    copy = clone(valuer)
    assert copy.get_params() == valuer.get_params()
    assert copy.set_params(method="el2n").method == "el2n"
    assert valuer.method == KnnShapley(k=2)
    assert repr(DataValuer("el2n")) == "DataValuer(method='el2n')"
    assert set(DataValuer().get_params()) == {"method", "valid", "recipe", "max_seconds", "device", "random_state"}


def test_its_values_are_those_of_the_method(fitted):
    scaler = StandardScaler().fit(TRAIN[0])
    direct = knn_shapley(scaler.transform(TRAIN[0]), TRAIN[1], scaler.transform(VALID[0]), VALID[1], k=3)
    np.testing.assert_allclose(fitted.values_, direct, atol=1e-6)
    assert fitted.values_.shape == (75,)
    assert fitted.ranking_.tolist() == np.lexsort((np.arange(75), -fitted.values_)).tolist()
    assert fitted.scores_.kind == "value"
    assert fitted.scores_.ledger.total().seconds > 0
    assert fitted.held_out_.tolist() == []
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.n_features_in_ == 4


def test_labels_may_be_any_names(fitted):
    names = np.array(["setosa", "versicolor", "virginica"])
    named = DataValuer("knn-shapley(k=3)").fit(TRAIN[0], names[TRAIN[1]], VALID[0], names[VALID[1]])
    assert np.array_equal(named.values_, fitted.values_)
    assert named.classes_.tolist() == names.tolist()


def test_without_validation_rows_a_stratified_part_is_held_out_and_it_says_so():
    valuer = DataValuer()
    with pytest.warns(UserWarning, match="no validation rows were given: 30 of 150 rows are held out .* give X_valid"):
        valuer.fit(X, Y)
    assert np.bincount(Y[valuer.held_out_]).tolist() == [10, 10, 10]
    assert np.flatnonzero(np.isnan(valuer.values_)).tolist() == valuer.held_out_.tolist()
    assert sorted(valuer.ranking_.tolist()) == list(range(150))
    assert valuer.ranking_[120:].tolist() == valuer.held_out_.tolist()
    assert valuer.get_support("100%").sum() == 120
    again = clone(valuer).set_params(random_state=1)
    with pytest.warns(UserWarning, match="held out"):
        again.fit(X, Y)
    assert not np.array_equal(again.held_out_, valuer.held_out_)


def test_select_keeps_the_rows_worth_most(fitted):
    rows, labels = fitted.select(*TRAIN, keep=20)
    best = np.sort(fitted.ranking_[:20])
    assert np.array_equal(rows, TRAIN[0][best])
    assert np.array_equal(labels, TRAIN[1][best])
    assert np.array_equal(fitted.get_support(20, indices=True), best)
    assert np.flatnonzero(fitted.get_support(20)).tolist() == best.tolist()
    assert len(fitted.select(TRAIN[0])) == 60
    assert fitted.select(TRAIN[0].tolist(), keep=20) == rows.tolist()
    assert np.bincount(fitted.select(*TRAIN, keep="5/class")[1]).tolist() == [5, 5, 5]


def test_wrong_labels_are_ranked_last():
    wrong = TRAIN[1].copy()
    wrong[:5] = 2
    valuer = DataValuer().fit(TRAIN[0], wrong, *VALID)
    assert set(range(5)) <= set(valuer.ranking_[-15:].tolist())


def test_data_frames():
    names = ["a", "b", "c", "d"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        valuer = DataValuer().fit(Frame(TRAIN[0], names), TRAIN[1], Frame(VALID[0], names), VALID[1])
    assert np.array_equal(valuer.values_, DataValuer().fit(*TRAIN, *VALID).values_)
    kept = valuer.select(Frame(TRAIN[0], names), keep=7)
    assert isinstance(kept, Frame)
    assert len(kept) == 7


def test_in_a_pipeline_it_values_what_the_steps_before_give():
    pipeline = make_pipeline(StandardScaler(), DataValuer("knn-shapley(k=3)"))
    with pytest.warns(UserWarning, match="held out"):
        pipeline.fit(X, Y)
    assert np.isfinite(pipeline[-1].values_).sum() == 120
    pipeline.set_params(datavaluer__method="ssp")
    assert pipeline[-1].method == "ssp"


def test_standard_errors_and_a_time_limit():
    valuer = DataValuer("data-banzhaf(samples=6400)", max_seconds=0).fit(*TRAIN, *VALID)
    assert valuer.standard_errors_.shape == (75,)
    assert DataValuer("ssp").fit(*TRAIN, *VALID).standard_errors_ is None
    assert valuer.scores_.note.startswith("stopped after 64 of 6,400 sets")


def test_regression():
    x, y = load_diabetes(return_X_y=True)
    y = y[:80] + 0.5
    valuer = DataValuer("knn-shapley-regression").fit(x[:60], y[:60], x[60:80], y[60:80])
    assert np.isfinite(valuer.values_).all()
    assert not hasattr(valuer, "classes_")
    mixed = DataValuer().fit(*TRAIN, *VALID)
    mixed.set_params(method="knn-shapley-regression").fit(x[:60], y[:60], x[60:80], y[60:80])
    assert not hasattr(mixed, "classes_")


def test_sources_reach_the_data_set(monkeypatch):
    seen = {}
    real = modicum.sklearn.score

    def spy(data, *args, **options):
        seen["train"] = data.train
        return real(data, *args, **options)

    monkeypatch.setattr(modicum.sklearn, "score", spy)
    where = np.array(["lab", "web", "web"] * 25)
    DataValuer().fit(*TRAIN, *VALID, sources=where)
    assert seen["train"].info.sources == ("lab", "web")
    assert seen["train"].sources.tolist() == [0, 1, 1] * 25


@pytest.mark.parametrize(
    "change, kind, text",
    [
        ({"X": np.full((75, 4), np.nan)}, InputError, "X, y: Input X contains NaN"),
        ({"X": np.zeros((75, 4, 2))}, InputError, "X, y: Found array with dim 3"),
        ({"X": TRAIN[0][:70]}, InputError, "X, y: Found input variables with inconsistent numbers of samples"),
        ({"y": None}, InputError, "X, y: .*requires y to be passed, but the target y is None"),
        (
            {"y": np.zeros(75, int), "y_valid": np.zeros(75, int)},
            DataError,
            "all 75 samples are of class 0; expected at least 2",
        ),
        ({"X_valid": None}, InputError, "y_valid is given without X_valid; give both or neither"),
        ({"y_valid": None}, InputError, "X_valid is given without y_valid; give both or neither"),
        ({"X_valid": VALID[0][:, :3]}, InputError, "X_valid, y_valid: X has 3 features, but DataValuer is expecting 4"),
        ({"y_valid": VALID[1] + 1}, InputError, r"y_valid has label 3; expected one of y: \[0, 1, 2\]"),
        ({"sources": ["a"]}, InputError, r"sources has shape \(1,\); expected \(75,\), one a row"),
    ],
)
def test_arrays_that_cannot_be_used(change, kind, text):
    arrays = {"X": TRAIN[0], "y": TRAIN[1], "X_valid": VALID[0], "y_valid": VALID[1]} | change
    with pytest.raises(kind, match=text):
        DataValuer().fit(**arrays)
    assert issubclass(InputError, (DataError, ValueError))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"method": "el3n"}, "method 'el3n' is unknown; did you mean el2n"),
        ({"method": "random"}, "method 'random' gives no scores"),
        ({"random_state": None}, "random_state=None; expected an integer"),
        ({"device": "abacus"}, "device='abacus' is not there"),
        ({"max_seconds": -1}, "max_seconds=-1; expected seconds >= 0"),
    ],
)
def test_parameters_that_make_no_sense(options, text):
    with pytest.raises(ModicumError, match=text):
        DataValuer(**options).fit(*TRAIN, *VALID)


def test_a_share_that_makes_no_sense():
    with pytest.raises(ModicumError, match=r"valid=1.5; expected a share in \(0, 1\)"):
        DataValuer(valid=1.5).fit(*TRAIN)


def test_select_needs_a_fit_and_the_same_rows(fitted):
    with pytest.raises(NotFittedError, match="This DataValuer instance is not fitted yet"):
        DataValuer().select(*TRAIN)
    with pytest.raises(InputError, match="X has 150 rows; expected the 75 that fit was given"):
        fitted.select(X)
    with pytest.raises(InputError, match="y has 150 rows; expected the 75"):
        fitted.select(TRAIN[0], Y)
    with pytest.raises(BudgetError, match="there are 75; keep fewer"):
        fitted.select(*TRAIN, keep=76)


def test_the_package_does_not_import_it():
    code = "import modicum, sys; assert not {'sklearn', 'modicum.sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
