import math

import pytest
import torch

from modicum.errors import DataError
from modicum.training.outputs import confidence_gap, error_norm, margin_of


def random_logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_margin_equals_a_loop():
    logits, targets = random_logits(3, 7, 4), torch.arange(7) % 4
    for t in range(3):
        for i in range(7):
            others = [logits[t, i, c] for c in range(4) if c != targets[i]]
            assert margin_of(logits, targets)[t, i] == logits[t, i, targets[i]] - max(others)


def test_error_norm_equals_the_distance_to_one_hot():
    probabilities, targets = random_logits(5, 3).softmax(1), torch.tensor([0, 1, 2, 0, 1])
    expected = (probabilities - torch.eye(3, dtype=torch.float64)[targets]).norm(dim=1)
    torch.testing.assert_close(error_norm(probabilities, targets), expected, rtol=0, atol=0)


def test_two_classes_margin_is_the_difference_and_gap_is_that_of_probabilities():
    logits = random_logits(6, 2)
    assert torch.equal(margin_of(logits, torch.zeros(6, dtype=torch.long)), logits[:, 0] - logits[:, 1])
    probabilities = logits.softmax(1)
    torch.testing.assert_close(confidence_gap(probabilities), (probabilities[:, 0] - probabilities[:, 1]).abs())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept_and_inputs_are_not_written_to(dtype):
    probabilities = random_logits(4, 3).softmax(1).to(dtype)
    before, targets = probabilities.clone(), torch.tensor([0, 1, 2, 0])
    for result in (
        margin_of(probabilities, targets),
        error_norm(probabilities, targets),
        confidence_gap(probabilities),
    ):
        assert result.dtype == dtype
        assert result.shape == (4,)
    assert torch.equal(probabilities, before)


def test_extremes():
    sure = torch.tensor([[1.0, 0.0, 0.0]])
    assert error_norm(sure, torch.tensor([0])).item() == 0
    assert error_norm(sure, torch.tensor([1])).item() == pytest.approx(math.sqrt(2))
    assert confidence_gap(sure).item() == 1


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: margin_of(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)), "logits must have shape .* c >= 2"),
        (lambda: margin_of(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long)), r"targets of shape \(4,\) do not fit"),
        (lambda: error_norm(torch.zeros(3, 2), torch.zeros(3)), "targets must be integer class indices, got dtype"),
        (lambda: confidence_gap(torch.zeros(3, 1)), "probabilities must have shape"),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(DataError, match=text):
        call()
