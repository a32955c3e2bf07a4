import numpy as np
import pytest

from modicum.errors import DataError
from modicum.scores import Scores


def test_ties_come_before_ids_and_after_values():
    scores = Scores(
        np.array([1.0, 1.0, 2.0, 1.0]), np.arange(4), "example", "difficulty", "points", ties=np.array([5, 1, 9, 1])
    )
    assert scores.ranking().tolist() == [2, 1, 3, 0]
    assert scores.ranking("easiest").tolist() == [1, 3, 0, 2]
    assert scores.ranking("middle").tolist() == [1, 3, 0, 2]


def test_ties_need_one_entry_a_sample():
    with pytest.raises(DataError, match="ties has 1 rows but values has 2"):
        Scores(np.zeros(2), np.arange(2), "example", "value", "points", ties=np.zeros(1))
