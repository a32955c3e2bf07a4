import numpy as np
import pytest
import torch

from modicum.errors import BudgetError, DataError
from modicum.scores import Budget
from modicum.selection.ranks import finite, first_of


def test_infinities_lie_one_beyond_the_finite():
    assert finite("scores", np.array([np.inf, 2, -np.inf, -1])).tolist() == [3, 2, -2, -1]
    assert finite("scores", np.array([np.inf, -np.inf])).tolist() == [1, -1]
    given = torch.tensor([1.0, torch.inf])
    assert finite("scores", given).tolist() == [1, 2]
    assert torch.isinf(given[1])


@pytest.mark.parametrize(
    "scores, text",
    [
        (np.array([0, np.nan]), r"scores\[1\] is nan; expected a number"),
        (np.zeros((2, 2)), r"scores has shape \(2, 2\) and dtype float64; expected numbers \(n,\)"),
        (np.empty(0), r"scores has shape \(0,\)"),
        (np.array(["a"]), "expected numbers"),
        ([1.0], "scores is a list; expected a torch tensor or a NumPy array"),
    ],
)
def test_errors_name_the_argument(scores, text):
    with pytest.raises(DataError, match=text):
        finite("scores", scores)


def test_first_of_a_sequence_with_floors():
    sequence, labels = np.array([3, 2, 1, 0]), np.array([0, 0, 1, 1])
    assert first_of(sequence, Budget(keep=2)).tolist() == [2, 3]
    assert first_of(sequence, Budget(keep=2), labels, 1.0).tolist() == [1, 3]
    assert first_of(sequence, Budget(per_class=1), labels).tolist() == [1, 3]
    with pytest.raises(BudgetError, match="needs labels"):
        first_of(sequence, Budget(per_class=1))
