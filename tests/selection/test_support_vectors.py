import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.svm import SVC

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError
from modicum.measurement import FeatureTable
from modicum.methods import make
from modicum.scores import Budget
from modicum.selection import SupportVectors, support_vectors


@pytest.fixture(scope="module")
def cancer():
    x, y = load_breast_cancer(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), y


def machine(x, y, C, kernel):
    return SVC(C=C, kernel=kernel, gamma=1 / 30, tol=1e-8).fit(x, y)


@pytest.mark.parametrize("kernel, C, size", [("linear", 1.0, 40), ("rbf", 1.0, 119), ("rbf", 10.0, 93)])
def test_the_same_machine_from_the_support_vectors_alone(cancer, kernel, C, size):
    x, y = cancer
    kept = support_vectors(x, y, C, kernel, 1 / 30)
    assert len(kept) == size
    assert kept.dtype == np.int64
    assert (np.diff(kept) > 0).all()
    whole, alone = machine(x, y, C, kernel), machine(x[kept], y[kept], C, kernel)
    assert np.abs(whole.decision_function(x) - alone.decision_function(x)).max() < 1e-7
    assert np.array_equal(support_vectors(x[kept], y[kept], C, kernel, 1 / 30), np.arange(size))


def test_without_a_support_vector_on_the_margin_it_is_another_machine(cancer):
    x, y = cancer
    whole = machine(x, y, 1.0, "rbf")
    free = whole.support_[np.abs(whole.dual_coef_[0]) < 1 - 1e-6]
    for i in free[:5]:
        rest = np.delete(np.arange(len(x)), i)
        other = machine(x[rest], y[rest], 1.0, "rbf")
        assert np.abs(whole.decision_function(x) - other.decision_function(x)).max() > 1e-4


def test_far_samples_on_the_right_side_change_nothing(cancer):
    x, y = cancer
    kept = support_vectors(x, y, 1.0, "linear")
    whole = machine(x, y, 1.0, "linear")
    direction = whole.coef_[0] / np.linalg.norm(whole.coef_)
    far = x[kept][:10] + 30 * np.where(y[kept][:10, None] > 0, 1, -1) * direction
    more, labels = np.concatenate([x[kept], far]), np.concatenate([y[kept], y[kept][:10]])
    other = machine(more, labels, 1.0, "linear")
    assert np.abs(whole.decision_function(x) - other.decision_function(x)).max() < 1e-6
    assert np.array_equal(support_vectors(more, labels, 1.0, "linear"), np.arange(len(kept)))


def test_gamma_from_the_data_is_not_lossless(cancer):
    x, y = cancer
    whole = SVC(tol=1e-8, gamma="scale").fit(x, y)
    alone = SVC(tol=1e-8, gamma="scale").fit(x[whole.support_], y[whole.support_])
    assert np.abs(whole.decision_function(x) - alone.decision_function(x)).max() > 0.5
    with pytest.raises(DataError, match=r"gamma='scale' depends on the data .* expected a number such as 1 / d"):
        support_vectors(x, y, gamma="scale")
    with pytest.raises(DataError, match="gamma='auto' depends on the data"):
        make("support-vectors(gamma='auto')")


def test_several_classes():
    x, y = load_iris(return_X_y=True)
    kept = support_vectors(x, y, kernel="linear")
    whole, alone = (SVC(kernel="linear", tol=1e-8).fit(x[at], y[at]) for at in (np.arange(150), kept))
    assert np.abs(whole.decision_function(x) - alone.decision_function(x)).max() < 1e-5


def splits(x, y):
    info = Info(classes=tuple(map(str, np.unique(y))))
    data = Dataset(torch.from_numpy(x).float(), torch.from_numpy(y), info=info)
    return Splits(data, data[:5], data[:5]), FeatureTable(data.inputs, data.inputs[:5])


@pytest.mark.parametrize(
    "load, method", [(load_breast_cancer, SupportVectors()), (load_iris, SupportVectors(kernel="linear"))]
)
def test_a_larger_budget_is_filled_with_the_nearest_and_stays_lossless(load, method):
    x, y = load(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    data, table = splits(x, y)
    rows, gamma = table.train.double().numpy(), 1 / x.shape[1]
    lossless = support_vectors(table.train, data.train.targets, kernel=method.kernel).numpy()
    k = len(lossless) + 20
    kept = method.select(data, Budget(keep=k), Context(), table).positions
    assert len(kept) == k
    assert np.isin(lossless, kept).all()
    whole, alone = (
        SVC(kernel=method.kernel, gamma=gamma, tol=1e-8).fit(rows[at], y[at]) for at in (np.arange(len(x)), kept)
    )
    assert np.abs(whole.decision_function(rows) - alone.decision_function(rows)).max() < 1e-5
    if len(np.unique(y)) == 2:
        margin = np.where(y == 1, 1, -1) * whole.decision_function(rows)
        filled, left = np.setdiff1d(kept, lossless), np.setdiff1d(np.arange(len(x)), kept)
        assert margin[filled].max() <= margin[left].min()


def test_a_smaller_budget_says_what_is_lost(cancer):
    data, table = splits(*cancer)
    with pytest.warns(UserWarning, match="budget of 20 is less than the 119 support vectors.*not lossless"):
        kept = SupportVectors().select(data, Budget(keep=20), Context(), table).positions
    assert len(kept) == 20
    with pytest.raises(BudgetError, match=r"budget of 20 is less than the 119 .*; keep at least 119"):
        SupportVectors(lossless=True).select(data, Budget(keep=20), Context(), table)
    kept = SupportVectors(lossless=True).select(data, Budget(keep=119), Context(), table).positions
    assert np.array_equal(kept, support_vectors(table.train.double().numpy(), cancer[1]))


def test_same_kind_and_no_writes(cancer):
    x, y = (torch.from_numpy(part) for part in cancer)
    before = x.clone()
    kept = support_vectors(x, y)
    assert isinstance(kept, torch.Tensor)
    assert kept.dtype == torch.int64
    assert torch.equal(x, before)


X, Y = np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: support_vectors(X, np.zeros(6, int)), "targets: all 6 samples are of class 0; expected at least 2"),
        (lambda: support_vectors(X, Y[:4]), "targets has 4 rows but features has 6"),
        (lambda: support_vectors(np.full((6, 1), np.nan), Y), r"features\[0, 0\] is nan"),
        (lambda: support_vectors(X, Y, C=0.0), "C=0.0; expected a number > 0"),
        (lambda: support_vectors(X, Y, kernel="cosine"), "kernel='cosine'; expected one of linear, rbf, poly, sigmoid"),
        (lambda: support_vectors(X, Y, gamma=-1.0), "gamma=-1.0; expected a number > 0"),
        (lambda: SupportVectors(C=-1.0), "C=-1.0; expected a number > 0"),
        (lambda: support_vectors(X, Y, C=None), "C=None; expected a number > 0"),
        (lambda: support_vectors(X, Y, gamma=True), "gamma=True; expected a number > 0"),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(DataError, match=text):
        call()
