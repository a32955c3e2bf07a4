import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.valuation import knn_loo
from modicum.valuation.knn_loo import knn_loo_and_error


@pytest.mark.parametrize("k", [1, 3, 5, 8, 10])
def test_equals_leaving_out_one_after_another(k, problem, by_definition):
    train, labels, valid, wanted = problem(m=5)

    def utility(j, order, ranks):
        return (labels[order[ranks[:k]]] == wanted[j]).sum() / k

    each = by_definition(train, valid, utility, "loo")
    mean, error = knn_loo_and_error(train, labels, valid, wanted, k)
    np.testing.assert_allclose(mean, each.mean(0), rtol=0, atol=1e-16)
    np.testing.assert_allclose(error, each.std(0, ddof=1) / np.sqrt(5), rtol=0, atol=1e-9)


def test_a_power_of_two_gives_it_without_any_error(problem, by_definition):
    train, labels, valid, wanted = problem(m=4)

    def utility(j, order, ranks):
        return (labels[order[ranks[:4]]] == wanted[j]).sum() / 4

    expected = by_definition(train, valid, utility, "loo").mean(0)
    assert np.array_equal(knn_loo(train, labels, valid, wanted, 4), expected)


def test_what_is_never_among_the_nearest_is_worth_exactly_nothing(problem):
    train, labels, valid, wanted = problem(500, 20)
    nearest = np.argsort(((valid[:, None] - train) ** 2).sum(2), axis=1)[:, :5]
    values = knn_loo(train, labels, valid, wanted)
    assert (np.delete(values, np.unique(nearest)) == 0).all()
    assert (values != 0).any()


def test_ties_at_the_last_place_break_by_position():
    train, labels = np.zeros((6, 2)), np.array([0, 1, 0, 1, 1, 1])
    values = knn_loo(train, labels, np.ones((1, 2)), np.array([1]), k=3)
    np.testing.assert_allclose(values, [-1 / 3, 0, -1 / 3, 0, 0, 0])


def test_tensors_in_tensors_out(problem):
    case = [torch.from_numpy(a) for a in problem(30, dtype=np.float32)]
    assert knn_loo(*case).dtype == torch.float32
    assert np.array_equal(knn_loo(*case).numpy(), knn_loo(*[a.numpy() for a in case]))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"k": 0}, "k=0; expected an integer >= 1"),
        (
            {"train_features": np.zeros((1, 4)), "train_targets": np.ones(1, int)},
            "the number of training samples=1; expected an integer >= 2",
        ),
        ({"valid_features": np.full((3, 4), np.inf)}, r"valid_features\[0, 0\] is inf"),
        ({"valid_targets": np.zeros(4, int)}, r"valid_targets has shape \(4,\); expected \(3,\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:valid_targets has class")
def test_errors_name_the_argument(change, text, problem):
    names = ("train_features", "train_targets", "valid_features", "valid_targets")
    with pytest.raises(DataError, match=text):
        knn_loo(**{**dict(zip(names, problem())), **change})
