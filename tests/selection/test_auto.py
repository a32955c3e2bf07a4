"""Auto: that the pilot decides, that theory does where it does not, and that it falls back to random."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.measurement import CurveTable
from modicum.methods import make
from modicum.scores import Budget, Scores
from modicum.selection import Auto
from modicum.selection.pruning_pilot import PilotTable
from modicum.selection.pruning_theory import pruning_theory
from modicum.selection.scored import Scored
from modicum.training.recipe import Recipe

N, CLASSES = 200, 2
SHARES = torch.tensor([0.05, 0.1, 0.25])


def splits():
    inputs = torch.arange(N, dtype=torch.float32)[:, None]
    data = Dataset(inputs, torch.arange(N) % CLASSES, ids=np.arange(N), info=Info(classes=("a", "b")))
    return Splits(data, data[:20], data[:20])


def pilot(alpha, kind="difficulty", of=N, valid=200_000, hardest=0.0, easiest=0.0):
    """A pilot whose random curve is the theory's; the others are better or worse than random by so much."""
    errors = torch.from_numpy(pruning_theory((alpha * SHARES).numpy().astype(float)))
    random = CurveTable((SHARES * of).long(), of, errors.expand(3, 3), valid, CLASSES)
    others = [replace(random, errors=(random.errors + more).clamp(0, 1)) for more in (hardest, easiest)]
    return PilotTable(scores(kind), random, *others)


def scores(kind="difficulty"):
    values = np.random.default_rng(0).normal(size=N)
    sign = 1 if kind == "difficulty" else -1
    return Scores(sign * values, np.arange(N), "given", kind, "points", np.arange(N) % CLASSES)


def chosen(alpha, keep=0.5, tables=None, seed=0, options=None, **given):
    tables = pilot(alpha, **given) if tables is None else tables
    return Auto(**options or {}).select(splits(), Budget(keep=keep), Context(seed=seed), tables)


@pytest.mark.parametrize("kind", ["difficulty", "value"])
@pytest.mark.parametrize("alpha, order", [(1.5, "easiest"), (60.0, "hardest")])
def test_it_keeps_what_theory_says_where_the_pilot_does_not_object(alpha, order, kind):
    found = chosen(alpha, kind=kind, options={"class_balance": 0.0})
    assert np.array_equal(found.positions, scores().kept(0.5, order))
    assert found.note.startswith(f"kept the {order}: predicted best, and no worse in the pilot (")
    assert "errors of the pilot at 25 % kept: random " in found.note
    assert np.array_equal(found.values, scores().values)


@pytest.mark.parametrize("alpha, order", [(1.5, "easiest"), (60.0, "hardest")])
def test_a_pilot_that_objects_makes_it_random(alpha, order):
    found = chosen(alpha, **{order: 0.001})
    assert found.note.startswith(f"kept random samples: {order}, predicted best, erred more in the pilot")
    assert np.bincount(splits().train.labels.numpy()[found.positions]).tolist() == [50, 50]


@pytest.mark.parametrize("alpha, order", [(60.0, "easiest"), (1.5, "hardest"), (5.05, "hardest")])
def test_a_pilot_that_is_sure_decides_whatever_theory_says(alpha, order):
    found = chosen(alpha, options={"class_balance": 0.0}, **{order: -0.15})
    assert np.array_equal(found.positions, scores().kept(0.5, order))
    assert found.note.startswith(f"kept the {order}: clearly better than random in the pilot")


def test_what_a_lead_within_the_noise_or_of_one_run_does_not_do():
    unsure = chosen(1.5, valid=20, hardest=-0.05, easiest=0.01)
    assert unsure.note.startswith("kept random samples")
    table = pilot(1.5, hardest=-0.15, easiest=0.01)
    once = {
        name: replace(getattr(table, name), errors=getattr(table, name).errors[:1]) for name in ("random", "hardest")
    }
    assert chosen(1.5, tables=replace(table, **once)).note.startswith("kept random samples")


def test_the_nearest_share_of_the_pilot_counts():
    table = pilot(60.0, easiest=0.01)
    worse_when_few = replace(table.hardest, errors=table.hardest.errors + torch.tensor([0.3, 0.0, -0.1]))
    table = replace(table, hardest=worse_when_few)
    few, between, many = (chosen(60.0, keep, table) for keep in (0.05, 0.2, 0.9))
    assert few.note.startswith("kept random samples")
    assert between.note.startswith("kept the hardest")
    assert "of the pilot at 20 % kept" in between.note
    assert "of the pilot at 25 % kept" in many.note


def test_classes_keep_their_share():
    found = chosen(60.0, keep=0.1, options={"class_balance": 1.0})
    assert np.bincount(splits().train.labels.numpy()[found.positions]).tolist() == [10, 10]


def test_where_it_is_not_clear_it_is_random_and_stratified():
    found = next(
        f
        for alpha in (3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
        if "nothing is clear" in (f := chosen(alpha, valid=100)).note
    )
    assert found.note.startswith("kept random samples: nothing is clear: ")
    assert np.bincount(splits().train.labels.numpy()[found.positions]).tolist() == [50, 50]
    assert not np.array_equal(found.positions, scores().kept(0.5, "hardest"))


def test_keeping_everything_needs_no_forecast():
    assert chosen(5.0, keep=1.0).note == "everything is kept"
    assert len(chosen(5.0, keep=1.0)) == N


def test_fewer_than_classes():
    assert len(chosen(5.0, keep=1)) == 1


def test_measurements_of_other_data():
    with pytest.raises(DataError, match="learning curve is of 100 samples, but train has 200"):
        chosen(5.0, of=100)
    some = Scores(np.zeros(199), np.arange(199), "given", "difficulty", "points")
    with pytest.raises(DataError, match="scores are of 199 samples with other ids"):
        chosen(5.0, tables=replace(pilot(60.0), scores=some))


@pytest.mark.parametrize("values", [np.zeros(N), np.full(N, np.inf), np.where(np.arange(N) % 4, 1.0, np.inf)])
@pytest.mark.parametrize("alpha", [1.5, 60.0])
def test_equal_and_infinite_scores(values, alpha):
    table = pilot(alpha)
    assert len(chosen(alpha, tables=replace(table, scores=replace(table.scores, values=values)))) == N // 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("auto(runs=0)", "option runs=0; expected an integer > 0"),
        ("auto(shares=(0.5, 0.25))", r"shares=\(0.5, 0.25\); expected at least two rising shares"),
        ("auto(shares=(0.5, 1.5))", r"shares=\(0.5, 1.5\); expected at least two rising shares"),
        ("auto(shares=3)", "shares=3; expected at least two rising shares"),
        ("auto(steps='few')", "option steps='few'; expected 'scaled', 'equal'"),
        ("auto(score='random')", "score='random' gives no scores"),
    ],
)
def test_options_out_of_range(text, message):
    with pytest.raises(ModicumError, match=message):
        make(text)


def test_what_it_needs():
    (pilot,) = Auto("aum", runs=2).needs()
    assert pilot.curve.shares == (0.03, 0.06, 0.125, 0.25)
    assert (pilot.curve.runs, pilot.score) == (2, "aum")
    assert pilot.trainings() == pytest.approx(Scored("aum").trainings() + 3 * 2 * 0.465)


def test_its_pilot_is_that_of_the_forecast(tmp_path):
    recipe = Recipe(model="linear", epochs=2)
    ctx = Context(cache=tmp_path)
    modicum.forecast("iris", keep=0.5, score="el2n(runs=2)", recipe=recipe, ctx=ctx)
    before = sorted(path.name for path in tmp_path.glob("*/*"))
    modicum.select("iris", Auto("el2n(runs=2)"), 0.5, recipe=recipe, ctx=ctx)
    assert sorted(path.name for path in tmp_path.glob("*/*")) == before
