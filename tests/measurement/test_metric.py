import pytest
import torch

from modicum.errors import DataError
from modicum.measurement.learners import Knn, Lda, Problem, Ridge
from modicum.measurement.metric import constant_worth, empty_worth, metric_of, outcome_of

WANTED = torch.tensor([0, 1, 2, 2, 1])


def problem(classes=3, wanted=WANTED):
    targets = torch.tensor([0, 1, 2, 0]) if classes else torch.zeros(4).double()
    return Problem(torch.zeros(4, 2).double(), targets, torch.zeros(5, 2).double(), wanted, classes)


def test_accuracy_is_that_of_argmax_in_either_layout():
    answers = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    expected = (answers.argmax(-1) == WANTED).double().mean(1)
    measure = metric_of("accuracy", problem(), Ridge())
    assert torch.equal(measure(answers), expected)
    assert torch.equal(measure(answers.mT.contiguous().mT), expected)


def test_equal_outputs_answer_the_lowest_class_and_rounding_does_not_decide():
    even = torch.zeros(1, 5, 3).double()
    measure = metric_of("accuracy", problem(), Ridge())
    for noise in (0.0, 1e-15, -1e-15):
        even[..., 2] = noise
        assert float(measure(even)) == 0.2
        assert outcome_of(even, "correct", problem(), Ridge()).tolist() == [[1, 0, 0, 0, 0]]


def test_a_class_that_is_not_there_is_never_the_answer():
    answers = torch.full((1, 5, 3), -5.0).double()
    answers[..., 0] = -torch.inf
    assert float(metric_of("accuracy", problem(), Ridge())(answers)) == 0.4
    assert float(metric_of("probability", problem(), Lda())(answers)) == pytest.approx(0.4)


def test_probability_of_logits_and_of_probabilities():
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    given = logits.softmax(-1)
    expected = given[:, torch.arange(5), WANTED].mean(1)
    torch.testing.assert_close(metric_of("probability", problem(), Lda())(logits), expected)
    torch.testing.assert_close(metric_of("probability", problem(), Knn())(given), expected)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("metric, learner", [("accuracy", Ridge()), ("probability", Lda())])
def test_outputs_that_are_not_numbers_are_not_scored(metric, learner, bad):
    answers = torch.zeros(2, 5, 3).double()
    answers[1, 3, 1] = bad
    assert metric_of(metric, problem(), learner)(answers).isfinite().tolist() == [True, False]


def test_margins():
    answers = torch.tensor(
        [[[3.0, 1.0, 0.0], [2.0, 1.0, 0.5], [0.0, 0.0, -torch.inf], [0.0, 1.0, 4.0], [9.0, 2.0, 1.0]]]
    )
    answers = answers.double()
    assert outcome_of(answers, "margin", problem(), Ridge()).tolist() == [[2.0, -1.0, 0.0, 3.0, -7.0]]
    logits = outcome_of(answers, "margin", problem(), Lda())
    assert logits[0, [0, 1, 3, 4]].tolist() == [2.0, -1.0, 3.0, -7.0]
    assert float(logits[0, 2]) == pytest.approx(-27.631, abs=1e-3)
    votes = torch.tensor([[[1.0, 0.0, 0.0]] * 5]).double()
    found = outcome_of(votes, "margin", problem(), Knn())
    assert found[0].tolist() == pytest.approx([27.631, -27.631, -27.631, -27.631, -27.631], abs=1e-3)


def test_regression():
    p = problem(0, torch.tensor([0.0, 1.0, 2.0, 0.0, 0.0]).double())
    answers = torch.tensor([[[0.0], [1.4], [1.0], [0.0], [0.0]]]).double()
    assert float(metric_of("squared-error", p, Ridge())(answers)) == pytest.approx(-(0.16 + 1) / 5)
    assert outcome_of(answers, "margin", p, Ridge())[0].tolist() == pytest.approx([0, -0.4, -1, 0, 0])
    assert outcome_of(answers, "correct", p, Ridge())[0].tolist() == [1, 1, 0, 1, 1]
    assert empty_worth("squared-error", p, Ridge()) == -1


def test_what_nobody_and_what_one_class_are_worth():
    assert empty_worth("accuracy", problem(), Ridge()) == 0.4
    assert empty_worth("probability", problem(), Lda()) == 1 / 3
    assert empty_worth("probability", problem(), Knn()) == 0
    assert [constant_worth(problem(), c) for c in range(3)] == [0.2, 0.4, 0.4]


@pytest.mark.parametrize(
    "metric, classes, learner, text",
    [
        ("squared-error", 3, Ridge(), "metric='squared-error' does not suit targets for classes; use 'auto'"),
        ("accuracy", 0, Ridge(), "metric='accuracy' does not suit targets for regression; use 'auto'"),
        ("probability", 3, Ridge(), r"needs a learner that gives probabilities; Ridge\(l2=1.0\) gives scores"),
    ],
)
def test_metrics_that_do_not_suit(metric, classes, learner, text):
    with pytest.raises(DataError, match=text):
        metric_of(metric, problem(classes), learner)
