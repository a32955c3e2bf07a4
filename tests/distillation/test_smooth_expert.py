import math
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import (
    MTT,
    SmoothExpert,
    balance_weight,
    flat_network,
    intermediate_steps,
    perturbed,
    representative_samples,
    trajectory_distance,
    unrolled_gradient,
)
from modicum.errors import ModicumError
from modicum.measurement.experts import Experts, ExpertTable
from modicum.methods import Card
from modicum.models import build
from modicum.scores import Budget
from modicum.training.recipe import Recipe

MODEL = "convnet(width=4)"
RECIPE, BUDGET = Recipe(model=MODEL), Budget(per_class=2)
EXPERTS = Experts(count=2, epochs=5, lr=0.05, batch_size=10, augment="none")
FAST = SmoothExpert(
    iterations=4, syn_steps=4, max_start=4, lr_img=1.0, lr_lr=1e-5, experts=2, epochs=5, lr_expert=0.05, batch_real=10,
    augment="none",
)  # fmt: skip
OFF: dict[str, Any] = dict(
    momentum_expert=0.0, weight_decay=0.0, decay=1.0, ramp=False, penalty=0.0, representative=False, balance=False,
    inner_momentum=0.0, intermediate="none", perturbation=0.0,
)  # fmt: skip


def pictures(n: int = 30) -> Splits:
    y = torch.arange(n) % 3
    x = torch.randn(n, 1, 8, 8, generator=generator(0, "x")) + y[:, None, None, None]
    train = Dataset(x, y, info=Info(modality="image", classes=tuple("abc")))
    return Splits(train, train[:6], train[:6])


@pytest.fixture(scope="module")
def experts() -> ExpertTable:
    return EXPERTS.measure(pictures(), RECIPE, Context())


def test_with_all_parts_off_it_is_mtt_to_the_bit(experts: ExpertTable) -> None:
    class Renamed(MTT):
        """With the random numbers of the other."""

        card: ClassVar[Card] = replace(MTT.card, key="smooth-expert")

    options: dict[str, Any] = dict(iterations=3, syn_steps=4, max_start=4, lr_img=2.0, lr_lr=1e-5, experts=2)
    plain = Renamed(**options).distill(pictures(), BUDGET, RECIPE, Context(), experts)
    made = SmoothExpert(**options, **OFF).distill(pictures(), BUDGET, RECIPE, Context(), experts)
    assert torch.equal(made.dataset.inputs, plain.dataset.inputs)
    assert made.history == plain.history
    assert made.recipe == plain.recipe
    assert SmoothExpert(**OFF, epochs=0, lr_expert=0.01).needs() == MTT().needs()


def test_the_experts_are_the_published_ones() -> None:
    (smooth,) = SmoothExpert().needs()
    assert (smooth.variant, smooth.lr, smooth.momentum, smooth.weight_decay) == ("smooth", 0.003, 0.9, 1e-3)
    assert (smooth.batch_size, smooth.epochs, smooth.decay) == (256, 50, 0.6)
    assert (smooth.ramp, smooth.penalty, smooth.norm) == (True, 2.0, "channel")
    assert SmoothExpert(ramp=False, decay=1).needs()[0].variant == "smooth"


@pytest.mark.parametrize(
    "part",
    [
        {"representative": True},
        {"balance": True},
        {"inner_momentum": 0.9},
        {"intermediate": "equal"},
        {"intermediate": "adaptive"},
        {"perturbation": 1.0},
    ],
)
def test_every_part_can_be_switched_alone(part: dict[str, Any], experts: ExpertTable) -> None:
    method = replace(FAST, iterations=2, **{**OFF, "lr_expert": 0.05})
    plain = method.distill(pictures(), BUDGET, RECIPE, Context(), experts)
    made = replace(method, **part).distill(pictures(), BUDGET, RECIPE, Context(), experts)
    assert not torch.equal(made.dataset.inputs, plain.dataset.inputs)


def test_all_parts_with_their_own_experts() -> None:
    made = FAST.distill(pictures(), BUDGET, RECIPE, Context())
    assert bool(made.dataset.inputs.isfinite().all())
    assert made.dataset.class_counts().tolist() == [2, 2, 2]


def test_the_weights_of_the_balanced_loss() -> None:
    assert balance_weight(10, 20) == pytest.approx(1.2920, abs=1e-4)
    assert balance_weight(12, 20) == pytest.approx(math.log(10) / math.log(5))
    assert balance_weight(7, 20) == pytest.approx(math.log(5) / math.log(11))
    weights = [balance_weight(t, 20) for t in range(20)]
    assert weights == sorted(weights)


def test_students_meet_the_expert_once_half_way(experts: ExpertTable) -> None:
    assert intermediate_steps(30, 2) == {15: 1}
    assert intermediate_steps(31, 3) == {10: 1, 20: 2}
    assert intermediate_steps(1, 2) == {}
    still: dict[str, Any] = {**OFF, "lr_expert": 0.05, "lr_img": 1e-12, "lr_lr": 0.0, "iterations": 1}
    losses = {}
    for kind in ("none", "equal", "adaptive"):
        method = replace(FAST, **{**still, "intermediate": kind})
        losses[kind] = method.distill(pictures(), BUDGET, RECIPE, Context(), experts).history["loss"][0]
    half = losses["equal"] - losses["none"]
    assert half > 0
    assert losses["adaptive"] - losses["none"] == pytest.approx(half / 2, rel=1e-4)


def test_the_adjoint_with_momentum_and_distances_on_the_way_is_exact() -> None:
    g = generator(1)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    theta, call = flat_network(network)
    start, *targets = (torch.randn(len(theta), generator=g, dtype=torch.float64) for _ in range(4))
    x, y = torch.randn(6, 3, generator=g, dtype=torch.float64).requires_grad_(), torch.arange(6) % 3
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def student(theta: Tensor, n: int, x: Tensor) -> Tensor:
        return balance_weight(7, 10) * F.cross_entropy(call(theta, x), y)

    also = {
        step: lambda theta, i=i: i / 3 * trajectory_distance(theta, start, targets[i - 1])
        for step, i in intermediate_steps(20, 3).items()
    }
    outer = lambda theta: trajectory_distance(theta, start, targets[2])  # noqa: E731
    exact, ours = (
        unrolled_gradient(student, start, [x], rate, outer, steps=20, momentum=0.9, also=also, mode=mode)  # type: ignore[arg-type]
        for mode in ("unroll", "adjoint")
    )
    assert sorted(ours.parts) == [6, 12, 20]
    for a, b in ((ours.loss, exact.loss), (ours.leaves[0], exact.leaves[0]), (ours.rates, exact.rates)):
        assert a is not None
        assert b is not None
        assert float((a - b).norm() / b.norm()) < 1e-10


def test_perturbed_weights_of_convolutions() -> None:
    network = build(MODEL, pictures().train, 0)
    theta, _ = flat_network(network)
    shapes = [p.shape for p in network.parameters()]
    moved = perturbed(theta, shapes, generator(0))
    change = (moved - theta).split([p.numel() for p in network.parameters()])
    for shape, part, own in zip(shapes, change, network.parameters(), strict=True):
        if len(shape) == 4:
            direction = part / own.detach().flatten()
            assert float(direction.norm()) == pytest.approx(1, rel=1e-3)
        else:
            assert not bool(part.any())
    assert sum(len(shape) == 4 for shape in shapes) >= 2
    assert torch.equal(moved, perturbed(theta, shapes, generator(0)))
    assert torch.equal(theta, perturbed(theta, shapes, generator(0), 0.0))


def test_the_start_is_near_the_centers_of_clusters(experts: ExpertTable) -> None:
    data, seed = pictures(), 3
    made = FAST.distill(data, Budget(per_class=3), RECIPE, Context(seed=seed), experts)
    start = made.snapshots[0].dataset.inputs
    random = generator(seed, "smooth-expert", "init")
    expert, number = (int(torch.randint(most, (1,), generator=random)) for most in (2, 2**31))
    _, call = flat_network(build(MODEL, data.train, 0))
    logits = call(experts.at(expert, 5), data.train.inputs)
    chosen = representative_samples(logits, data.train.labels, torch.full((3,), 3), number)
    torch.testing.assert_close(start, data.train.inputs[chosen])


def test_steps_that_do_not_divide_warn(experts: ExpertTable) -> None:
    with pytest.warns(UserWarning, match=r"syn_steps=5 is no multiple of expert_epochs=2; .* after steps \[2\]"):
        replace(FAST, syn_steps=5, iterations=1).distill(pictures(), BUDGET, RECIPE, Context(), experts)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_start": 1}, r"max_start=1; expected an integer >= 2, .* or balance=False"),
        ({"syn_steps": 1}, r"syn_steps=1; expected at least expert_epochs=2, .* intermediate='none'"),
        ({"clusters": 0}, "clusters=0; expected an integer > 0"),
        ({"decay": 1.5}, r"decay=1.5; expected a number in \(0, 1\]"),
        ({"inner_momentum": 1.0}, r"inner_momentum=1.0; expected a number in \[0, 1\)"),
        ({"intermediate": "half"}, "intermediate='half'; expected 'equal', 'adaptive', 'none'"),
        ({"epochs": 10}, "epochs=10; expected 0, or at least 21"),
    ],
)
def test_errors_of_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        SmoothExpert(**options)


def test_errors_of_the_mathematics() -> None:
    with pytest.raises(ModicumError, match="end=1; expected an integer >= 2"):
        balance_weight(0, 1)
    with pytest.raises(ModicumError, match=r"start=4; expected an integer in 0\.\.3"):
        balance_weight(4, 4)
    with pytest.raises(ModicumError, match="steps=0; expected an integer >= 1"):
        intermediate_steps(0, 2)
    with pytest.raises(ModicumError, match=r"theta is \(3,\) and shapes hold 4 numbers"):
        perturbed(torch.zeros(3), [(2, 2)], generator(0))
