import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import TrainingError
from modicum.pretraining.bank import corrected_bank_update, draw_others, ema_bank_update, even_size, initial_bank


def problem(b=6, k=10, d=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    bank = F.normalize(torch.randn(k, d, generator=draw, dtype=torch.float64), dim=1)
    v = F.normalize(torch.randn(b, d, generator=draw, dtype=torch.float64), dim=1)
    return bank, v, torch.randint(k, (b,), generator=draw)


def test_the_step_is_the_gradient_of_the_cross_entropy():
    bank, v, indices = problem()
    rows = bank.clone().requires_grad_()
    logits = v @ rows.T / 0.2
    F.cross_entropy(logits, indices, reduction="sum").backward()
    expected = F.normalize(bank - 0.7 * 0.2 * rows.grad, dim=1)
    new = corrected_bank_update(bank, v, indices, logits.detach().softmax(1), 0.7)
    torch.testing.assert_close(new, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("step", [0.25, 1.0, 3.0])
def test_without_probabilities_it_is_the_moving_average(step):
    bank, v, _ = problem()
    indices = torch.randperm(10)[:6]
    expected = bank.clone()
    expected[indices] = ema_bank_update(bank[indices], v, 1 / (1 + step))
    new = corrected_bank_update(bank, v, indices, torch.zeros(6, 10, dtype=torch.float64), step)
    torch.testing.assert_close(new, expected, atol=1e-14, rtol=0)


def test_rows_of_the_batch_alone_move_as_they_do_among_all():
    bank, v, _ = problem()
    indices = torch.tensor([7, 2, 0, 9, 4, 5])
    p = (v @ bank.T / 0.2).softmax(1)
    whole = corrected_bank_update(bank, v, indices, p, 1.0)
    part = corrected_bank_update(bank[indices], v, torch.arange(6), p[:, indices], 1.0)
    torch.testing.assert_close(part, whole[indices], atol=1e-14, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), step=st.floats(0, 5))
def test_rows_are_unit_vectors_and_the_bank_is_not_written_to(seed, step):
    bank, v, indices = problem(seed=seed)
    before = bank.clone()
    new = corrected_bank_update(bank, v, indices, (v @ bank.T).softmax(1), step)
    torch.testing.assert_close(new.norm(dim=1), torch.ones(10, dtype=torch.float64))
    assert torch.equal(bank, before)
    if step == 0:
        torch.testing.assert_close(new, bank)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"probabilities": torch.zeros(2, 3)}, r"have shapes \(4, 5\), \(2, 5\), \(2,\), \(2, 3\); expected \(k, d\)"),
        ({"features": torch.zeros(2, 3)}, r"shapes \(4, 5\), \(2, 3\)"),
        ({"indices": torch.tensor([0, 4])}, "indices holds 4, but the bank has 4 rows"),
        ({"step": -1.0}, "step=-1.0; expected a number >= 0"),
        ({"step": math.nan}, "step=nan; expected a number >= 0"),
    ],
)
def test_errors_name_the_argument(change, text):
    good = {
        "bank": torch.rand(4, 5),
        "features": torch.rand(2, 5),
        "indices": torch.tensor([0, 1]),
        "probabilities": torch.zeros(2, 4),
        "step": 1.0,
    }
    with pytest.raises(TrainingError, match=text):
        corrected_bank_update(**{**good, **change})


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_others_are_distinct_and_not_taken(data):
    n = data.draw(st.integers(2, 300))
    b = data.draw(st.integers(1, n - 1))
    count = data.draw(st.integers(0, n - b))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    taken = torch.randperm(n, generator=draw)[:b]
    found = draw_others(n, taken, count, draw)
    assert len(found) == count
    assert len({*found.tolist(), *taken.tolist()}) == b + count
    assert not count or 0 <= int(found.min()) <= int(found.max()) < n


@pytest.mark.parametrize("count", [3, 12])
def test_others_are_uniform(count):
    draw, taken = torch.Generator().manual_seed(0), torch.tensor([0, 5])
    drawn = torch.cat([draw_others(20, taken, count, draw) for _ in range(3000)])
    share = torch.bincount(drawn, minlength=20) / 3000
    expected = count / 18
    off = (share - expected).abs()
    off[taken] = share[taken]
    assert float(off.max()) < 4 * math.sqrt(expected * (1 - expected) / 3000)


@given(n=st.integers(2, 3000), most=st.integers(2, 300))
@settings(max_examples=100, deadline=None)
def test_no_batch_is_a_single_sample(n, most):
    size = even_size(n, most)
    assert 2 <= size <= n
    assert n % size != 1
    assert size <= most + 10


def test_initial_rows():
    torch.testing.assert_close(initial_bank("random", 50, 8, 0).norm(dim=1), torch.ones(50))
    uniform = initial_bank("uniform", 2000, 8, 0)
    assert float(uniform.abs().max()) <= math.sqrt(3 / 8)
    assert float(uniform.square().sum(1).mean()) == pytest.approx(1, abs=0.02)
    assert not initial_bank("features", 5, 8, 0).any()
    assert torch.equal(initial_bank("random", 5, 8, 1), initial_bank("random", 5, 8, 1))
    assert not torch.equal(initial_bank("random", 5, 8, 1), initial_bank("random", 5, 8, 2))
