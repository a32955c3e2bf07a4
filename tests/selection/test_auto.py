"""Auto: that it does what the forecast says, and falls back to random where that is not clear."""

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.measurement import CurveTable
from modicum.methods import make
from modicum.scores import Budget, Scores
from modicum.selection import Auto
from modicum.selection.pruning_theory import pruning_theory

N, CLASSES = 200, 2
SHARES = torch.tensor([0.05, 0.1, 0.25])


def splits():
    inputs = torch.arange(N, dtype=torch.float32)[:, None]
    data = Dataset(inputs, torch.arange(N) % CLASSES, ids=np.arange(N), info=Info(classes=("a", "b")))
    return Splits(data, data[:20], data[:20])


def curve(alpha, of=N, valid=5000):
    errors = torch.from_numpy(pruning_theory((alpha * SHARES).numpy().astype(float)))
    return CurveTable((SHARES * of).long(), of, errors.expand(3, 3), valid, CLASSES)


def scores(kind="difficulty"):
    values = np.random.default_rng(0).normal(size=N)
    sign = 1 if kind == "difficulty" else -1
    return Scores(sign * values, np.arange(N), "given", kind, "points", np.arange(N) % CLASSES)


def chosen(alpha, keep=0.5, kind="difficulty", valid=5000, **options):
    method = Auto(**options)
    return method.select(splits(), Budget(keep=keep), Context(), curve(alpha, valid=valid), scores(kind))


@pytest.mark.parametrize("kind", ["difficulty", "value"])
@pytest.mark.parametrize("alpha, order", [(1.5, "easiest"), (60.0, "hardest")])
def test_it_keeps_what_the_forecast_says(alpha, order, kind):
    found = chosen(alpha, kind=kind, class_balance=0.0)
    assert np.array_equal(found.positions, scores().kept(0.5, order))
    assert found.note.startswith(f"kept the {order} (best in ")
    assert np.array_equal(found.values, scores().values)


def test_classes_keep_their_share():
    found = chosen(60.0, keep=0.1, class_balance=1.0)
    assert np.bincount(splits().train.labels.numpy()[found.positions]).tolist() == [10, 10]


def test_where_it_is_not_clear_it_is_random_and_stratified():
    found = next(
        f
        for alpha in (3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
        if "would be best in only" in (f := chosen(alpha, valid=100)).note
    )
    assert found.note.startswith("kept random samples (")
    assert np.bincount(splits().train.labels.numpy()[found.positions]).tolist() == [50, 50]
    assert not np.array_equal(found.positions, scores().kept(0.5, "hardest"))


def test_keeping_everything_needs_no_forecast():
    assert chosen(5.0, keep=1.0).note == "everything is kept"
    assert len(chosen(5.0, keep=1.0)) == N


def test_fewer_than_classes():
    assert len(chosen(5.0, keep=1)) == 1


def test_measurements_of_other_data():
    with pytest.raises(DataError, match="learning curve is of 100 samples, but train has 200"):
        Auto().select(splits(), Budget(keep=0.5), Context(), curve(5.0, of=100), scores())
    some = Scores(np.zeros(199), np.arange(199), "given", "difficulty", "points")
    with pytest.raises(DataError, match="scores are of 199 samples with other ids"):
        Auto().select(splits(), Budget(keep=0.5), Context(), curve(60.0), some)


@pytest.mark.parametrize(
    "text, message",
    [
        ("auto(runs=0)", "option runs=0; expected an integer > 0"),
        ("auto(least=0.5)", r"shares=\(0.5, .*\); expected at least two rising shares"),
        ("auto(most=1.5)", "option most=1.5; expected a number in"),
        ("auto(steps='few')", "option steps='few'; expected 'scaled', 'equal'"),
        ("auto(score='random')", "score='random' gives no scores"),
    ],
)
def test_options_out_of_range(text, message):
    with pytest.raises(ModicumError, match=message):
        make(text)


def test_what_it_needs():
    pilot, scored = Auto("aum", runs=2).needs()
    assert pilot.shares[0] == 0.03
    assert pilot.shares[-1] == 0.25
    assert len(pilot.shares) == 4
    assert (pilot.runs, scored.method) == (2, "aum")
