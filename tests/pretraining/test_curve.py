"""The curve: it changes nothing, costs nothing of the run, and goes on where it was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import ModicumError
from modicum.pretraining import Curve, pretrain
from modicum.pretraining.curve import epochs_of, moments
from modicum.pretraining.learner import Learner
from modicum.store import Store
from modicum.training.recipe import Recipe

RECIPE = Recipe("mlp(hidden=16)", epochs=3, batch_size=64, optimizer="adamw", lr=1e-3)
METHOD = "simclr(augment='none', hidden=16, dimension=8)"


@pytest.fixture(scope="module")
def digits() -> Splits:
    data = modicum.load("digits")
    return Splits(data.train[:200], data.valid[:100], data.test[:50])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.integers(1, 30))
def test_moments_are_spread_and_end_at_the_last(epochs: int, points: int) -> None:
    made = moments(epochs, points)
    assert made[-1] == epochs
    assert len(made) == min(points, epochs)
    gaps = [b - a for a, b in zip((0, *made), made)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_epochs_are_those_of_the_run(digits: Splits) -> None:
    for recipe, share in ((RECIPE, 1.0), (RECIPE, 0.5), (Recipe("mlp(hidden=16)", steps=7, batch_size=64), 1.0)):
        done = pretrain(digits, METHOD, recipe, share=share)
        assert len(done.history["loss"]) == epochs_of(recipe, 200, share)


def test_it_changes_nothing_and_its_cost_is_apart(digits: Splits) -> None:
    plain = pretrain(digits, METHOD, RECIPE)
    curve = Curve(digits, RECIPE, k=20)
    done = pretrain(digits, METHOD, RECIPE, recorder=curve)
    for a, b in zip(plain.learner.state_dict().values(), done.learner.state_dict().values()):
        assert torch.equal(a, b)
    assert plain.ledger.total().flops == done.ledger.total().flops
    rows = curve.rows(done)
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert [row.samples for row in rows] == [192, 384, 576]
    assert rows[-1].flops == done.ledger.total().flops
    assert 0 < rows[0].seconds < rows[1].seconds < rows[2].seconds < done.ledger.total().seconds
    assert curve.ledger.total("evaluate").samples == 3 * 300
    assert curve.ledger.total("train").flops == 0
    assert curve.seconds > 0
    assert rows[-1].accuracy > 0.5


def test_what_was_measured_first_is_in_the_cost(digits: Splits) -> None:
    curve = Curve(digits, RECIPE, points=1)
    done = pretrain(digits, METHOD, RECIPE, recorder=curve)
    before = curve.rows(done)[0]
    from modicum.ledger import Charge

    done.ledger.charges.insert(0, Charge("choose", "prior", forward_flops=1000, seconds=5.0))
    after = curve.rows(done)[0]
    assert after.flops == before.flops + 1000
    assert after.seconds == pytest.approx(before.seconds + 5)


class Stopping(Curve):
    """Dies at the end of the second epoch."""

    def end_epoch(self, epoch: int, model: torch.nn.Module) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        super().end_epoch(epoch, model)


def test_interrupted_and_resumed_equals_uninterrupted(digits: Splits, tmp_path: Path) -> None:
    whole = Curve(digits, RECIPE, k=20)
    done = pretrain(digits, METHOD, RECIPE, recorder=whole)
    ctx = Context(store=Store(tmp_path), checkpoint_seconds=0.0)
    stopping = Stopping(digits, RECIPE, k=20)
    stopping.__class__.__qualname__ = "Curve"  # the same work under the same name
    with pytest.raises(KeyboardInterrupt):
        pretrain(digits, METHOD, RECIPE, ctx, recorder=stopping)
    again = Curve(digits, RECIPE, k=20)
    resumed = pretrain(digits, METHOD, RECIPE, ctx, recorder=again)
    assert [(r.epoch, r.flops, r.accuracy) for r in again.rows(resumed)] == [
        (r.epoch, r.flops, r.accuracy) for r in whole.rows(done)
    ]
    assert again.ledger.total().samples == whole.ledger.total().samples
    for a, b in zip(done.learner.state_dict().values(), resumed.learner.state_dict().values()):
        assert torch.equal(a, b)


def test_it_takes_any_module_and_at_most_so_many_votes(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    from modicum.pretraining import curve as module

    monkeypatch.setattr(module, "REFERENCES", 50)
    curve = Curve(digits, RECIPE)
    assert len(curve.train) == 50
    assert set(curve.train.labels.tolist()) == set(range(10))
    curve.end_epoch(0, torch.nn.Flatten())
    assert not isinstance(torch.nn.Flatten(), Learner)
    assert curve.found[0][1] > 0.5


def test_errors(digits: Splits) -> None:
    blank = Dataset(digits.train.inputs)
    with pytest.raises(ModicumError, match="the valid split has no class labels"):
        Curve(Splits(digits.train, blank, blank), RECIPE)
    with pytest.raises(ModicumError, match="the valid split has no class labels"):
        Curve(Splits(digits.train, digits.valid[:0], digits.test), RECIPE)
    with pytest.raises(ModicumError, match="points=0; expected an integer >= 1"):
        Curve(digits, RECIPE, points=0)
