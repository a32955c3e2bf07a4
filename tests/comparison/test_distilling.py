"""What judging a set gives, and what it is said to take before."""

from dataclasses import replace

import pytest

import modicum
from modicum.comparison.distilling import TABULAR, estimate_distilling, judge, networks_beside
from modicum.context import Context
from modicum.distillation import ARCHITECTURES, DM, Distilled
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.scores import Budget
from modicum.store import Store
from modicum.training.recipe import Recipe

IRIS = modicum.load("iris")
RECIPE = Recipe("mlp(hidden=4)", epochs=1)
METHOD = DM(iterations=3, lr_img="auto", model="mlp(hidden=4)")


def test_networks_suit_the_data():
    assert networks_beside(IRIS, None) == TABULAR
    assert networks_beside(modicum.load("digits"), None) == ARCHITECTURES
    assert networks_beside(IRIS, ["linear"]) == ("linear",)


def test_a_set_without_moments_and_controls(tmp_path):
    made = Distilled(IRIS.train[:9], replace(RECIPE, epochs=2), "first")
    ctx = Context(ledger=Ledger())
    same, found = judge(made, IRIS, Budget(per_class=3), RECIPE, ctx, Store(tmp_path), "key", networks=2, beside=False)
    assert same is made
    assert (found["curve"], len(found["set"]), found["finished"]) == ([], 2, True)
    assert "controls" not in found
    assert [c.what for c in ctx.ledger.charges] == ["choosing the best moment", "testing the set"]
    assert found["costs"]["set"]["flops"] > 0
    # of another work nothing is used
    _, other = judge(made, IRIS, Budget(per_class=3), RECIPE, ctx, Store(tmp_path), "other", networks=1, beside=False)
    assert len(other["set"]) == 1


def test_nothing_is_begun_after_the_deadline(tmp_path):
    made = Distilled(IRIS.train[:9], RECIPE, "first")
    _, found = judge(made, IRIS, Budget(per_class=3), RECIPE, Context(deadline=0.0), Store(tmp_path), "key")
    assert not found["finished"]
    assert "set" not in found


def test_the_estimate_grows_with_the_work():
    ledger = Ledger()
    ctx = Context(ledger=ledger)

    def told(method=METHOD, networks=0, beside=False):
        return estimate_distilling(
            method, IRIS, Budget(per_class=1), RECIPE, ctx, networks, beside, ("linear", "no such")
        )

    assert told().trainings == 0
    assert told(networks=2).trainings == 9 + 2
    assert told(networks=2, beside=True).trainings == 9 + 2 + 6 + 12 + 1 + 2
    assert told(replace(METHOD, iterations=10**6)).seconds > 100 * told().seconds
    assert ledger.charges == []


def test_the_estimate_leaves_errors_to_the_work():
    method = replace(METHOD, model="nothing")
    assert estimate_distilling(method, IRIS, Budget(per_class=1), RECIPE, Context(), 0, False).trainings == 0
    with pytest.raises(ModicumError, match="model 'nothing' is unknown"):
        modicum.distill("iris", method, per_class=1)


def test_a_set_with_a_rate_for_each_step_can_be_estimated():
    told = []
    made = modicum.distill("iris", "dd(iterations=2, steps=1, networks=1)", per_class=1, announce=told.append)
    assert len(made.recipe.rates) == made.recipe.steps == 3
    assert told[0].seconds > 0
