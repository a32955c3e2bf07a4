import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.methods import make
from modicum.scores import Budget, Scores
from modicum.selection import Ranked

LABELS = np.array([0] * 8 + [1] * 2)


def kept(method, values, kind="difficulty", budget=4, **rest):
    n = len(values)
    train = Dataset(torch.zeros(n, 1), torch.from_numpy(LABELS[:n]), info=Info(classes=("a", "b")))
    scores = Scores(np.asarray(values, float), train.ids, "x", kind, "points", LABELS[:n], **rest)
    budget = budget if isinstance(budget, Budget) else Budget(keep=budget)
    return method.select(Splits(train, train, train), budget, Context(), scores)


UP = np.arange(10.0)


@pytest.mark.parametrize(
    "options, kind, expected",
    [
        ("", "difficulty", [6, 7, 8, 9]),
        ("order='easiest'", "difficulty", [0, 1, 2, 3]),
        ("order='middle'", "difficulty", [3, 4, 5, 6]),
        ("", "value", [6, 7, 8, 9]),
        ("order='easiest'", "value", [6, 7, 8, 9]),
        ("order='hardest'", "value", [0, 1, 2, 3]),
        ("order='middle'", "value", [3, 4, 5, 6]),
        ("skip=0.2", "difficulty", [4, 5, 6, 7]),
        ("order='hardest', skip=0.2", "value", [2, 3, 4, 5]),
        ("order='easiest', skip=0.2", "difficulty", [0, 1, 2, 3]),
        ("order='middle', skip=0.2", "difficulty", [2, 3, 4, 5]),
    ],
)
def test_an_end_or_the_middle_of_any_score(options, kind, expected):
    assert kept(make(f"ranked({options})"), UP, kind).positions.tolist() == expected


def test_the_order_of_the_score_itself_is_the_default():
    assert kept(Ranked(), UP, order="easiest").positions.tolist() == [0, 1, 2, 3]
    assert kept(Ranked(order="hardest"), UP, order="easiest").positions.tolist() == [6, 7, 8, 9]


def test_class_floors_are_the_options_or_the_scores_own():
    assert kept(Ranked(order="easiest"), UP).positions.tolist() == [0, 1, 2, 3]
    assert kept(Ranked(order="easiest", class_balance=0.5), UP).positions.tolist() == [0, 1, 2, 8]
    assert kept(Ranked(order="easiest", class_balance=0.5), UP, class_balance=1.0).positions.tolist() == [0, 1, 8, 9]
    assert kept(Ranked(order="easiest"), UP, class_balance=1.0).positions.tolist() == [0, 1, 8, 9]


def test_every_sample_has_a_reason():
    chosen = kept(Ranked(order="easiest", class_balance=0.5, skip=0.1), UP)
    assert chosen.reasons.tolist() == [
        *["among the easiest"] * 3,
        "its place went to a smaller class",
        *["harder than those kept"] * 4,
        "kept for its class",
        "among the hardest 10 %, which are skipped",
    ]
    assert chosen.values.tolist() == UP.tolist()
    assert chosen.unit == "points"
    of_class = kept(Ranked(), UP, budget=Budget(per_class=1)).reasons
    assert of_class[7] == "among the hardest of its class"
    assert of_class[8] == "easier than those kept of its class"


def test_skipped_ones_that_are_needed_are_told():
    chosen = kept(Ranked(skip=0.5), UP, budget=7)
    assert chosen.positions.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert chosen.note == "2 of the 5 hardest were needed to fill the budget"
    assert chosen.reasons[5] == "of the skipped hardest, to fill the budget"
    assert kept(Ranked(skip=0.5), UP).note == ""
    assert kept(Ranked(), UP, note="stopped early").note == "stopped early"


def test_ties_and_infinities_follow_the_scores():
    ties = np.array([3, 2, 1, 0.0])
    assert kept(Ranked(), [0, 0, 0, np.inf], budget=2, ties=ties).positions.tolist() == [2, 3]
    assert kept(Ranked(skip=0.25), [0, 0, 0, np.inf], budget=2, ties=ties).positions.tolist() == [1, 2]


@pytest.mark.parametrize(
    "text, message",
    [
        ("ranked(order='hard')", "option order='hard'; expected '', 'hardest', 'easiest', 'middle'"),
        ("ranked(skip=1.0)", r"option skip=1.0; expected a number in \[0, 1\)"),
        ("ranked(class_balance=2)", r"option class_balance=2; expected a number in \[0, 1\]"),
        ("ranked(score='herding')", "score='herding' gives no scores; expected a method of"),
        ("ranked(score='el3n')", "method 'el3n' is unknown; did you mean el2n"),
    ],
)
def test_errors_name_the_option(text, message):
    with pytest.raises(ModicumError, match=message):
        make(text)
