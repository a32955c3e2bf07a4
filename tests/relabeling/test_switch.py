"""The switch: the published triples, the published steps, and its copy for short runs."""

import pytest
import torch

from modicum.errors import ModicumError
from modicum.relabeling import SwitchRule
from modicum.relabeling.switch import REFERENCE_STEPS, StepRule


def first_step(rule, loss, most=10_000):
    """The 0-based step whose update brings g to the threshold."""
    return next(step for step in range(most) if rule.update(loss) >= 0.995)


def test_the_first_three_triples():
    rule = SwitchRule()
    assert (rule.g, rule.fast, rule.slow) == (0.0, 1.0, 2.0)
    expected = [(0.367879, 0.9999, 1.989999), (0.37154, 0.9997, 1.980096), (0.375163, 0.9994, 1.970289)]
    for loss, triple in zip((0.9, 0.8, 0.7), expected):
        rule.update(loss)
        assert (rule.g, rule.fast, rule.slow) == pytest.approx(triple, abs=1e-6)


@pytest.mark.parametrize("loss, step", [(1.0, 527), (0.8, 1479), (0.6, 2172), (0.4, 2577), (0.2, 2864)])
def test_when_it_fires_for_a_constant_loss(loss, step):
    assert first_step(SwitchRule(), loss) == step


def test_once_switched_it_stays():
    rule = SwitchRule(threshold=0.3)
    rule.update(1.0)
    before = rule.g, rule.fast, rule.slow
    assert rule.switched
    rule.update(-100.0)
    assert (rule.g, rule.fast, rule.slow) == before


def test_a_falling_loss_keeps_the_targets():
    steady, falling = SwitchRule(), SwitchRule()
    for step in range(1000):
        steady.update(1.0)
        falling.update(1.0 - step / 1000)
    assert steady.switched
    assert not falling.switched


def test_the_scaled_rule_is_the_rule_at_the_reference_length():
    assert SwitchRule.scaled(REFERENCE_STEPS).beta_fast == 0.999
    for loss in (1.0, 0.6):
        published = first_step(SwitchRule(), loss) / REFERENCE_STEPS
        for steps in (300, 2000, 50_000):
            assert first_step(SwitchRule.scaled(steps), loss, 60_000) / steps == pytest.approx(published, rel=0.3)


def test_saved_and_loaded_in_the_middle_goes_on_to_the_same_bits():
    whole, half = SwitchRule(), SwitchRule()
    losses = torch.rand(60, generator=torch.Generator().manual_seed(0)).tolist()
    for loss in losses[:30]:
        half.update(loss)
    other = SwitchRule()
    other.load_state_dict(half.state_dict())
    for loss in losses:
        whole.update(loss)
    for loss in losses[30:]:
        other.update(loss)
    assert (whole.g, whole.fast, whole.slow) == (other.g, other.fast, other.slow)


def test_after_a_number_of_steps():
    rule = StepRule(2)
    seen = []
    for _ in range(3):
        seen.append((rule.switched, rule.g))
        rule.update(0.5)
    assert seen == [(False, 0.0), (False, 0.0), (True, 1.0)]
    other = StepRule(5)
    other.load_state_dict(rule.state_dict())
    assert other.done == 3
    assert StepRule(0).switched


@pytest.mark.parametrize(
    "change, text",
    [
        ({"beta_fast": 1.0}, r"beta_fast=1.0; expected a decay in \[0, 1\)"),
        ({"beta_slow": float("nan")}, "beta_slow=nan; expected"),
        ({"init_slow": float("inf")}, "init_slow=inf; expected a finite number"),
        ({"threshold": 0.0}, r"threshold=0.0; expected a number in \(0, 1\]"),
    ],
)
def test_numbers_that_make_no_sense(change, text):
    with pytest.raises(ModicumError, match=text):
        SwitchRule(**change)
