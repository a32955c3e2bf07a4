import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modicum.errors import DataError
from modicum.valuation import forgetting


def column(text):
    return np.array([[c == "1"] for c in text.split()])


@pytest.mark.parametrize(
    "sequence, events",
    [("0 1 1 0 1 0", 2), ("0 0 0", np.inf), ("1 1 1", 0), ("0 0 1", 0), ("1 0 0", 1), ("1", 0), ("0", np.inf)],
)
def test_sequences(sequence, events):
    assert forgetting(column(sequence)).tolist() == [events]


@settings(max_examples=50, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_online_counter_gives_the_same(correct):
    last, events, learned = correct[0].copy(), np.zeros(correct.shape[1]), correct[0].copy()
    for now in correct[1:]:
        events += last & ~now
        learned |= now
        last = now
    assert np.array_equal(forgetting(correct), np.where(learned, events, np.inf))


def test_tensors_and_integers():
    correct = torch.tensor([[1, 0], [0, 0]])
    assert forgetting(correct).tolist() == [1.0, float("inf")]
    assert isinstance(forgetting(correct.bool()), torch.Tensor)
    assert isinstance(forgetting(correct.numpy()), np.ndarray)


@pytest.mark.parametrize(
    "correct, text",
    [
        (np.zeros((0, 3), bool), r"correct has shape \(0, 3\)"),
        (np.zeros(3, bool), r"correct has shape \(3,\); expected \(epochs, n\)"),
        (np.array([[0.0, 0.5]]), r"correct\[0, 1\] is 0.5; expected true or false"),
        (np.array([[0.0, np.nan]]), r"correct\[0, 1\] is nan"),
    ],
)
def test_errors_name_the_argument(correct, text):
    with pytest.raises(DataError, match=text):
        forgetting(correct)
