"""What the methods share that match trajectories, and the three plain ones of them: mtt, tesla, ftd."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import FTD, MTT, TESLA, Distilled, flat_network, trajectory_distance, unrolled_gradient
from modicum.distillation.synthesis import Synthesis
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.measurement import Experts, ExpertTable
from modicum.models import build
from modicum.scores import Budget
from modicum.training.recipe import Recipe

MODEL = "mlp(hidden=8, layers=1)"
FAST = MTT(
    iterations=3, syn_steps=4, expert_epochs=1, max_start=2, lr_img=1.0, lr_lr=1e-4, lr_start=0.05, experts=2,
    lr_expert=0.1, batch_real=10, model=MODEL, augment="none",
)  # fmt: skip
SHARED = {name: getattr(FAST, name) for name in (f.name for f in fields(FAST)) if name != "grad"}


def table(n: int = 30) -> Splits:
    draw = generator(0, "data")
    x, y = torch.randn(n, 5, generator=draw), torch.arange(n) % 3
    x[:, 0] += y
    train = Dataset(x, y, info=Info(classes=("a", "b", "c")))
    return Splits(train, train[:6], train[:6])


def pictures(n: int = 24) -> Splits:
    x = torch.randn(n, 1, 8, 8, generator=generator(0, "pictures"))
    train = Dataset(x, torch.arange(n) % 2, info=Info(modality="image", classes=("cat", "dog")))
    return Splits(train, train[:6], train[:6])


def made_by(method: MTT | TESLA | FTD, data: Splits | None = None, per_class: int = 2, **options: Any) -> Distilled:
    return method.distill(data or table(), Budget(per_class=per_class), Recipe(), Context(**options))


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the method."""
    monkeypatch.setattr(Synthesis, "random", lambda self, *names: generator(self.ctx.seed, *names))


def vectors(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = generator(seed, "vectors")
    student, start, target = (torch.randn(50, generator=g, dtype=torch.float64) for _ in range(3))
    return student, start, target


class TestDistance:
    def test_no_step_is_one_and_arrival_is_zero(self) -> None:
        student, start, target = vectors(0)
        assert float(trajectory_distance(start, start, target)) == 1
        assert float(trajectory_distance(target, start, target)) == 0
        wanted = (student - target).pow(2).sum() / (start - target).pow(2).sum()
        torch.testing.assert_close(trajectory_distance(student, start, target), wanted)

    @given(st.integers(0, 100), st.floats(0.01, 100))
    @settings(max_examples=20, deadline=None)
    def test_a_common_scale_around_the_target_changes_nothing(self, seed: int, scale: float) -> None:
        student, start, target = vectors(seed)
        scaled = (target + scale * (v - target) for v in (student, start))
        torch.testing.assert_close(trajectory_distance(*scaled, target), trajectory_distance(student, start, target))

    def test_experts_that_stand_still_are_refused(self) -> None:
        student, start, _ = vectors(0)
        with pytest.raises(ModicumError, match=r"squared distance from start to target is 0; .* did not move"):
            trajectory_distance(student, start, start.clone())

    def test_shapes(self) -> None:
        with pytest.raises(ModicumError, match=r"student is \(3,\), start \(4,\) and target \(4,\)"):
            trajectory_distance(torch.zeros(3), torch.zeros(4), torch.ones(4))


def test_the_samples_and_rate_of_the_expert_reach_its_target() -> None:
    # whole batches of all data, as many steps as epochs: the student is the expert
    data = table()
    method = replace(FAST, batch_real=30, syn_steps=3, expert_epochs=3, lr_start=0.1)
    made = made_by(replace(method, iterations=1), data, per_class=10)
    assert made.history["loss"][0] < 1e-10
    other = made_by(replace(method, iterations=1, lr_start=0.05), data, per_class=10)
    assert other.history["loss"][0] > 1e-2


def test_the_loss_falls_on_one_segment() -> None:
    method = replace(FAST, iterations=60, experts=1, max_start=1, lr_img=5.0, lr_lr=1e-4, expert_epochs=3, syn_steps=9)
    loss = made_by(method).history["loss"]
    assert loss[-1] < 0.5 * loss[0]


@pytest.mark.parametrize("options", [{}, {"batch_syn": 4}], ids=["whole", "batches"])
def test_the_exact_gradients_make_the_same_set(options: dict[str, Any]) -> None:
    adjoint, unroll = (made_by(replace(FAST, grad=grad, **options)) for grad in ("adjoint", "unroll"))
    torch.testing.assert_close(adjoint.dataset.inputs, unroll.dataset.inputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(adjoint.recipe.lr), torch.tensor(unroll.recipe.lr), rtol=1e-4, atol=0)
    assert not torch.equal(adjoint.dataset.inputs, adjoint.snapshots[0].dataset.inputs)


def test_images_are_augmented_with_the_same_draws_when_a_step_is_taken_again() -> None:
    method = replace(FAST, model="convnet(width=4)", augment="auto", iterations=2)
    adjoint, unroll = (made_by(replace(method, grad=grad), pictures()) for grad in ("adjoint", "unroll"))
    torch.testing.assert_close(adjoint.dataset.inputs, unroll.dataset.inputs, rtol=1e-3, atol=1e-4)
    plain = made_by(replace(method, augment="none"), pictures())
    assert not torch.allclose(plain.dataset.inputs, adjoint.dataset.inputs)
    assert adjoint.recipe.augment == ("dsa(strategy='color_crop_cutout_flip_scale_rotate')",)
    assert (adjoint.recipe.epochs, plain.recipe.epochs) == (1000, 300)


def test_the_recipe_has_the_learned_rate() -> None:
    made = made_by(replace(FAST, lr_lr=1e-3))
    assert made.recipe.lr != pytest.approx(0.05, rel=1e-6)
    assert made.recipe.model == MODEL
    assert made.history["rate"][0] == pytest.approx(0.05)
    fixed = made_by(replace(FAST, lr_lr=0.0))
    assert fixed.recipe.lr == pytest.approx(0.05)


def test_the_epochs_are_those_of_the_window() -> None:
    method = replace(FAST, iterations=40, max_start=3, lr_img=1e-9, lr_lr=0.0)
    assert set(made_by(method).history["epoch"]) == {0.0, 1.0, 2.0}


def test_work_is_charged_with_every_pass() -> None:
    ctx, data = Context(), table()
    experts = FAST.needs()[0].measure(data, Recipe(), Context())
    FAST.distill(data, Budget(per_class=2), Recipe(), ctx, experts)
    (charge,) = ctx.ledger.charges
    assert charge.samples == 3 * 2 * 4 * 6
    forward = 2 * 6 * (5 * 8 + 8 * 3)
    assert charge.forward_flops == 3 * 2 * 4 * forward
    assert charge.backward_flops > 3 * 4 * 3 * forward
    assert not charge.uncounted


class TestBadInput:
    def test_a_rate_that_falls_below_zero_is_held(self) -> None:
        with pytest.warns(UserWarning, match="learned rate fell to -.* and is held at 1e-06; use a smaller lr_lr"):
            made = made_by(replace(FAST, lr_lr=10.0, lr_start=1.0, iterations=2))
        assert made.recipe.lr == pytest.approx(1e-6)

    def test_students_that_diverge_are_left_out_and_at_last_given_up(self) -> None:
        method = replace(FAST, lr_start=1e30, iterations=9)
        made = made_by(method)
        assert made.history["skipped"] == [1.0] * 9
        assert torch.equal(made.dataset.inputs, made.snapshots[0].dataset.inputs)
        with pytest.raises(TrainingError, match="last 10 iterations is not finite; students diverge"):
            made_by(replace(method, iterations=11))

    def test_experts_that_are_too_short(self) -> None:
        short = replace(FAST.needs()[0], epochs=1).measure(table(), Recipe(), Context())
        with pytest.raises(
            ModicumError, match=r"max_start=2 with expert_epochs=1 reads experts up to epoch 2, .* have 1"
        ):
            FAST.distill(table(), Budget(per_class=1), Recipe(), Context(), short)

    def test_experts_of_other_data_or_networks(self) -> None:
        data = table()
        experts = FAST.needs()[0].measure(data, Recipe(), Context())
        changed = data._replace(train=data.train.replace(inputs=data.train.inputs * 2))
        with pytest.raises(ModicumError, match="trained on other data"):
            FAST.distill(changed, Budget(per_class=1), Recipe(), Context(), experts)
        with pytest.raises(ModicumError, match="the students are 'linear'"):
            replace(FAST, model="linear").distill(data, Budget(per_class=1), Recipe(), Context(), experts)

    def test_experts_that_do_not_move(self) -> None:
        experts = FAST.needs()[0].measure(table(), Recipe(), Context())
        still = ExpertTable(experts.weights[:, :1].expand(-1, 3, -1), experts.recipe, experts.fingerprint)
        with pytest.raises(ModicumError, match="the expert did not move"):
            FAST.distill(table(), Budget(per_class=1), Recipe(), Context(), still)

    @pytest.mark.parametrize(
        "options, text",
        [
            ({"syn_steps": 0}, "syn_steps=0; expected an integer > 0"),
            ({"max_start": 0}, "max_start=0"),
            ({"lr_img": -1.0}, "lr_img=-1.0; expected a number > 0 or 'auto'"),
            ({"grad": "exact"}, "grad='exact'; expected 'adjoint', 'unroll', 'tesla'"),
            ({"epochs": 10}, "epochs=10; expected 0, or at least 21"),
            ({"momentum": 1.0}, r"momentum=1.0; expected a number in \[0, 1\)"),
            ({"augment": "colour"}, "family 'colour' is unknown"),
        ],
    )
    def test_options(self, options: dict[str, Any], text: str) -> None:
        with pytest.raises(ModicumError, match=text):
            MTT(**options)

    def test_texts_have_no_gradient(self) -> None:
        info = Info(classes=("a", "b"), modality="text", vocabulary=("", "?", "x"))
        words = Dataset(torch.ones(4, 3, dtype=torch.long), torch.arange(4) % 2, info=info)
        with pytest.raises(DataError, match="text is token numbers"):
            made_by(FAST, Splits(words, words, words), per_class=1)


# -- tesla ---------------------------------------------------------------------------------------------------------


def inner(steps: int, batch: int = 6, linear: bool = False) -> dict[str, Any]:
    """A student of an MLP on batches of double precision, and where the expert went."""
    g = generator(0, "tesla", steps)
    data = table().train
    theta, call = flat_network(build("mlp(hidden=16)", data, 0).double())
    x = torch.randn(12, 5, generator=g, dtype=torch.float64).requires_grad_()
    y = torch.arange(12) % 3
    batches = [torch.randperm(12, generator=g)[:batch] for _ in range(steps)]
    target = theta + 0.3 * torch.randn(len(theta), generator=g, dtype=torch.float64)
    mix = torch.randn(5, len(theta), generator=g, dtype=torch.float64)

    def loss(at: Tensor, n: int, x: Tensor) -> Tensor:
        if linear:
            return at @ (x[batches[n]].tanh() @ mix).mean(0)
        return F.cross_entropy(call(at, x[batches[n]]), y[batches[n]])

    rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    outer = lambda at: trajectory_distance(at, theta, target)  # noqa: E731
    found = {"loss": loss, "theta": theta, "leaves": [x], "rates": rate, "outer": outer, "steps": steps}
    return found | {"target": target, "batches": batches}


def gradients(given: dict[str, Any], mode: str) -> tuple[Tensor, Tensor]:
    parts = {key: value for key, value in given.items() if key not in ("target", "batches")}
    made = unrolled_gradient(**parts, mode=mode)  # type: ignore[arg-type]
    assert made.leaves[0] is not None
    assert made.rates is not None
    return made.leaves[0], made.rates


def test_one_step_has_the_exact_gradient() -> None:
    for exact, approximate in zip(gradients(inner(1), "adjoint"), gradients(inner(1), "tesla")):
        torch.testing.assert_close(approximate, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [2, 7])
def test_a_loss_linear_in_the_parameters_has_the_exact_gradient(steps: int) -> None:
    given_ = inner(steps, linear=True)
    for exact, approximate in zip(gradients(given_, "adjoint"), gradients(given_, "tesla")):
        torch.testing.assert_close(approximate, exact, rtol=1e-12, atol=1e-12)


def test_the_approximate_gradient_is_the_published_formula() -> None:
    given_ = inner(5)
    theta0, target, x = given_["theta"], given_["target"], given_["leaves"][0]
    rate, theta, steps = 0.3, given_["theta"].clone(), []
    for n in range(5):
        here = theta.detach().requires_grad_()
        (g,) = torch.autograd.grad(given_["loss"](here, n, x), here, create_graph=True)
        steps.append(g)
        theta = theta - rate * g.detach()
    total = torch.stack([g.detach() for g in steps]).sum(0)
    pull = (rate * (target - theta0) + rate**2 * total).detach()
    wanted = torch.zeros_like(x)
    for g in steps:
        wanted += 2 * torch.autograd.grad(pull @ g, x)[0]
    wanted /= (theta0 - target).pow(2).sum()
    torch.testing.assert_close(gradients(given_, "tesla")[0], wanted, rtol=1e-10, atol=1e-14)


def test_the_approximate_gradient_turns_away_with_the_steps() -> None:
    cosines = []
    for steps in (1, 2, 20):
        exact, approximate = (gradients(inner(steps), mode)[0] for mode in ("adjoint", "tesla"))
        cosines.append(float(F.cosine_similarity(exact.flatten(), approximate.flatten(), dim=0)))
    assert cosines[0] == pytest.approx(1, abs=1e-10)
    assert 0.99 < cosines[1] < 1 - 1e-6
    assert cosines[2] < cosines[1]


@pytest.mark.usefixtures("same_draws")
def test_tesla_is_mtt_with_another_gradient() -> None:
    one = made_by(TESLA(**{**SHARED, "syn_steps": 1}))
    torch.testing.assert_close(one.dataset.inputs, made_by(replace(FAST, syn_steps=1)).dataset.inputs)
    exact = made_by(TESLA(**SHARED, grad="adjoint"))
    assert torch.equal(exact.dataset.inputs, made_by(FAST).dataset.inputs)


def test_assigned_labels_are_those_of_the_experts() -> None:
    data = table()
    method = TESLA(**SHARED, soft_labels=True)
    experts = method.needs()[0].measure(data, Recipe(), Context())
    made = method.distill(data, Budget(per_class=2), Recipe(), Context(), experts)
    assert made.dataset.targets is not None
    assert made.dataset.targets.shape == (6, 3)
    _, call = flat_network(build(MODEL, data.train, 0))
    x = data.train.prepare(made.dataset.inputs)
    wanted = torch.stack([call(experts.at(e, 2), x).softmax(1) for e in range(2)]).mean(0)
    torch.testing.assert_close(made.dataset.targets, wanted)
    hard = TESLA(**SHARED).distill(data, Budget(per_class=2), Recipe(), Context(), experts)
    assert not torch.allclose(hard.dataset.inputs, made.dataset.inputs)


# -- ftd -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("same_draws")
def test_flat_experts_of_radius_zero_and_no_average_give_mtt() -> None:
    made = made_by(FTD(**SHARED, rho=0.0, ema=0.0))
    torch.testing.assert_close(made.dataset.inputs, made_by(FAST).dataset.inputs, rtol=1e-4, atol=1e-4)


def test_the_average_lags_behind_by_its_formula() -> None:
    last, mean = (made_by(FTD(**SHARED, ema=ema)) for ema in (0.0, 0.7))
    assert last.history == mean.history
    x0 = mean.snapshots[0].dataset.inputs
    inputs = [made_by(FTD(**{**SHARED, "iterations": k}, ema=0.0)).dataset.inputs for k in (1, 2, 3)]
    wanted = x0
    for x in inputs:
        wanted = 0.7 * wanted + 0.3 * x
    torch.testing.assert_close(mean.dataset.inputs, wanted)


def test_flat_experts_are_asked_for() -> None:
    assert FTD(rho=0.5, alpha=0.3).needs() == (Experts(epochs=21, variant="gsam", rho=0.5, alpha=0.3),)
    assert MTT(epochs=50).needs() == (Experts(),)


@pytest.mark.parametrize("option", ["rho", "alpha"])
def test_negative_radius(option: str) -> None:
    with pytest.raises(ModicumError, match=f"{option}=-0.1; expected a number >= 0"):
        FTD(**{option: -0.1})  # type: ignore[arg-type]


def test_a_decay_of_one_never_changes() -> None:
    with pytest.raises(ModicumError, match=r"ema=1\.0"):
        FTD(ema=1.0)
