from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import DATM, MTT, averaged_logits, flat_network, unrolled_gradient, upper_epoch
from modicum.distillation.trajectory import trajectory_distance
from modicum.errors import ModicumError
from modicum.measurement.experts import Experts, ExpertTable
from modicum.methods import Card
from modicum.models import build
from modicum.scores import Budget
from modicum.training.recipe import Recipe

MODEL = "mlp(hidden=8, layers=1)"
RECIPE, BUDGET = Recipe(model=MODEL), Budget(per_class=2)
EXPERTS = Experts(count=3, epochs=8, lr=0.1, batch_size=10)
FAST = DATM(
    iterations=6, syn_steps=5, max_start=6, first_start=2, expand=3, lr_img=1.0, lr_lr=1e-4, lr_y=0.5, threshold=1e9,
    experts=3, epochs=8, lr_expert=0.1, batch_real=10, rho=0,
)  # fmt: skip


def table(n: int = 60) -> Splits:
    """Three clouds that overlap."""
    y = torch.arange(n) % 3
    x = torch.randn(n, 4, generator=generator(0, "table")) + 1.5 * F.one_hot(y, 4)
    train = Dataset(x, y, info=Info(classes=tuple("abc")))
    return Splits(train, train[:6], train[:6])


@pytest.fixture(scope="module")
def experts() -> ExpertTable:
    return EXPERTS.measure(table(), RECIPE, Context())


def test_it_asks_for_flat_experts() -> None:
    (flat,) = DATM().needs()
    assert (flat.variant, flat.epochs, flat.rho, flat.alpha) == ("gsam", 100, 0.01, 0.3)
    assert FAST.needs() == (EXPERTS,)


def test_with_hard_labels_and_the_whole_window_it_is_mtt(experts: ExpertTable) -> None:
    class Renamed(MTT):
        """With the random numbers of the other."""

        card: ClassVar[Card] = replace(MTT.card, key="datm")

    options: dict[str, Any] = dict(iterations=5, syn_steps=4, max_start=5, lr_img=2.0, lr_lr=1e-4, batch_syn=3)
    plain = Renamed(**options).distill(table(), BUDGET, RECIPE, Context(), experts)
    parts: dict[str, Any] = dict(first_start=0, labels="hard", lr_y=0.0, threshold=1e30, known=False)
    made = DATM(**options, **parts).distill(table(), BUDGET, RECIPE, Context(), experts)
    torch.testing.assert_close(made.dataset.inputs, plain.dataset.inputs, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.history["loss"], plain.history["loss"], rtol=0, atol=1e-5)
    assert not torch.equal(plain.dataset.inputs, plain.snapshots[0].dataset.inputs)
    assert torch.equal(made.dataset.labels, plain.dataset.labels)


@settings(max_examples=30, deadline=None)
@given(first=st.integers(1, 30), more=st.integers(0, 30), expand=st.integers(0, 50))
def test_the_window_opens_step_by_step(first: int, more: int, expand: int) -> None:
    ends = [upper_epoch(i, first, first + more, expand) for i in range(expand + 3)]
    assert ends == sorted(ends)
    assert ends[0] == (first if expand else first + more)
    assert ends[expand] == ends[-1] == first + more


def test_students_start_inside_the_window(experts: ExpertTable) -> None:
    method = replace(FAST, iterations=60, min_start=1, max_start=6, expand=20, lr_img=1e-6, lr_y=0.0)
    epochs = method.distill(table(), BUDGET, RECIPE, Context(), experts).history["epoch"]
    for i, epoch in enumerate(epochs):
        assert 1 <= epoch < upper_epoch(i, 2, 6, 20)
    assert set(epochs[:4]) == {1}

    assert max(epochs) == 5


def test_the_start_is_real_samples_that_the_first_expert_knows(experts: ExpertTable) -> None:
    data = table()
    start = FAST.distill(data, Budget(per_class=4), RECIPE, Context(), experts).snapshots[0].dataset
    distance = torch.cdist(start.inputs, data.train.inputs)
    assert float(distance.min(1).values.max()) < 1e-2
    assert len(distance.argmin(1).unique()) == 12
    own = torch.arange(3).repeat_interleave(4)
    assert torch.equal(data.train.labels[distance.argmin(1)], own)
    _, call = flat_network(build(MODEL, data.train, 0))
    assert torch.equal(call(experts.at(0, experts.epochs), start.inputs).argmax(1), own)


def test_the_first_labels_are_what_the_experts_say(experts: ExpertTable) -> None:
    data = table()
    start = FAST.distill(data, BUDGET, RECIPE, Context(), experts).snapshots[0].dataset
    _, call = flat_network(build(MODEL, data.train, 0))
    told = (call(experts.at(e, 8), start.inputs) for e in range(3))
    expected = averaged_logits(told, torch.arange(3).repeat_interleave(2)).softmax(1)
    assert start.targets is not None
    torch.testing.assert_close(start.targets, expected)


def test_labels_are_learned_and_stay_probabilities(experts: ExpertTable) -> None:
    made = FAST.distill(table(), BUDGET, RECIPE, Context(), experts)
    targets, first = made.dataset.targets, made.snapshots[0].dataset.targets
    assert targets is not None
    assert first is not None
    assert float((targets - first).abs().max()) > 1e-3
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    assert made.recipe.loss == "cross-entropy"
    kept = replace(FAST, lr_y=0.0).distill(table(), BUDGET, RECIPE, Context(), experts).dataset.targets
    assert kept is not None
    assert torch.equal(kept, first)


def test_the_gradient_of_the_logits_is_that_of_finite_differences() -> None:
    g = generator(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    theta, call = flat_network(network)
    start, target = (torch.randn(len(theta), generator=g, dtype=torch.float64) for _ in range(2))
    x, z = torch.randn(6, 3, generator=g, dtype=torch.float64), torch.randn(6, 3, generator=g, dtype=torch.float64)

    def found(z: Tensor) -> Any:
        def student(theta: Tensor, n: int, z: Tensor) -> Tensor:
            return F.cross_entropy(call(theta, x), z.softmax(1))

        distance = lambda theta: trajectory_distance(theta, start, target)  # noqa: E731
        return unrolled_gradient(student, start, [z], 0.3, distance, steps=7)

    (slope,) = found(z.clone().requires_grad_()).leaves
    for at in ((0, 1), (4, 2)):
        step = torch.zeros_like(z)
        step[at] = 1e-5
        difference = (found((z + step).requires_grad_()).loss - found((z - step).requires_grad_()).loss) / 2e-5
        assert float(slope[at]) == pytest.approx(float(difference), rel=1e-6)


def test_segments_above_the_threshold_change_nothing(experts: ExpertTable) -> None:
    made = replace(FAST, threshold=1e-9).distill(table(), BUDGET, RECIPE, Context(), experts)
    assert made.history["skipped"] == [1.0] * 6
    assert torch.equal(made.dataset.inputs, made.snapshots[0].dataset.inputs)
    assert made.recipe.lr == pytest.approx(0.01)
    assert sum(FAST.distill(table(), BUDGET, RECIPE, Context(), experts).history["skipped"]) == 0


def test_batches_are_at_most_128(experts: ExpertTable) -> None:
    made = replace(FAST, iterations=1, syn_steps=1).distill(table(150), Budget(per_class=45), RECIPE, Context())
    assert (len(made), made.recipe.batch_size) == (135, 128)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"min_start": 20}, "option min_start=20; expected less than max_start=20"),
        ({"min_start": 10}, "option first_start=10; expected 0, or more than min_start=10 and at most max_start=20"),
        ({"first_start": 21}, "option first_start=21; expected 0, or more than min_start=0 and at most max_start=20"),
        ({"max_start": 100}, "epochs=100; expected 0, or at least 101"),
        ({"threshold": 0}, "option threshold=0; expected a number > 0"),
        ({"lr_y": -1}, "option lr_y=-1; expected a number >= 0"),
        ({"momentum_y": 1.0}, r"option momentum_y=1.0; expected a number in \[0, 1\)"),
        ({"labels": "soft"}, "option labels='soft'; expected 'experts', 'hard'"),
    ],
)
def test_errors_of_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        DATM(**options)


def test_errors_of_the_window() -> None:
    with pytest.raises(ModicumError, match="first=0, last=4, expand=2, iteration=0; expected 0 < first <= last"):
        upper_epoch(0, 0, 4, 2)
