import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.valuation import knn_banzhaf


@pytest.mark.parametrize("k", [1, 3, 5, 8, 10])
def test_equals_all_subsets(k, problem, by_definition):
    train, labels, valid, wanted = problem()

    def utility(j, order, ranks):
        return (labels[order[ranks[:k]]] == wanted[j]).sum() / k

    expected = by_definition(train, valid, utility, "banzhaf").mean(0)
    np.testing.assert_allclose(knn_banzhaf(train, labels, valid, wanted, k), expected, atol=1e-15)


def test_worked_example():
    values = knn_banzhaf(np.array([[1.0], [2.0], [3.0]]), np.array([1, 0, 1]), np.zeros((1, 1)), np.array([1]), k=1)
    assert values.tolist() == [0.75, -0.25, 0.25]


def test_duplicates_share_equally_up_to_the_order_of_ties():
    train, labels = np.array([[1.0], [1.0], [1.0]]), np.array([1, 1, 1])
    values = knn_banzhaf(train, labels, np.zeros((1, 1)), np.array([1]), k=2)
    assert values.tolist() == [3 / 8] * 3


def test_ranks_that_underflow_are_left_out_and_change_nothing(problem):
    train, labels, valid, wanted = problem(3000, 7)
    values = np.zeros(len(train))
    for query, y in zip(valid, wanted):
        order = np.argsort(((train - query) ** 2).sum(1), kind="stable")
        chance, match = 1.0, labels[order] == y  # k = 1: a point counts where none of the nearer ones is there
        found = np.zeros(len(order))
        for i in range(len(order)):
            found[: i + 1] += (float(match[i]) - float(match[i + 1] if i + 1 < len(order) else 0)) * chance
            chance /= 2
        values[order] += found / len(valid)
    np.testing.assert_allclose(knn_banzhaf(train, labels, valid, wanted, 1), values, atol=1e-15)


def test_tensors_in_tensors_out(problem):
    case = [torch.from_numpy(a) for a in problem(30, dtype=np.float32)]
    before = [a.clone() for a in case]
    assert knn_banzhaf(*case).dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(case, before))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"k": 0}, "k=0; expected an integer >= 1"),
        ({"train_features": np.full((8, 4), np.nan)}, r"train_features\[0, 0\] is nan"),
        ({"valid_features": np.zeros((0, 4))}, r"valid_features has shape \(0, 4\)"),
        ({"train_targets": np.zeros(5, int)}, r"train_targets has shape \(5,\); expected \(8,\)"),
    ],
)
def test_errors_name_the_argument(change, text, problem):
    names = ("train_features", "train_targets", "valid_features", "valid_targets")
    with pytest.raises(DataError, match=text):
        knn_banzhaf(**{**dict(zip(names, problem())), **change})
