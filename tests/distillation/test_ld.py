"""Learned labels: their gradient, the closed-form head, and when a network begins anew."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import LD, Distilled, project_labels, ridge_head, unrolled_gradient
from modicum.distillation.ld import Student
from modicum.errors import DataError, ModicumError
from modicum.scores import Budget
from modicum.training.recipe import Recipe

FAST = LD(iterations=4, batch_real=20, model="mlp(hidden=8, layers=1)")


def blobs(n: int = 60) -> Splits:
    draw = np.random.default_rng(0)
    inputs = torch.from_numpy(draw.normal(size=(n, 5)).astype(np.float32))
    data = Dataset(inputs + 3 * torch.eye(5)[torch.arange(n) % 3], torch.arange(n) % 3, info=Info(classes=tuple("abc")))
    return Splits(data, data, data)


def distilled(method: LD = FAST, per_class: int = 2) -> Distilled:
    return method.distill(blobs(), Budget(per_class=per_class), Recipe(), Context())


class TestProjection:
    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 999), size=st.sampled_from([0.1, 1.0, 100.0]))
    def test_rows_are_probabilities(self, seed: int, size: float) -> None:
        labels = size * torch.randn(7, 4, generator=torch.Generator().manual_seed(seed))
        made = project_labels(labels)
        assert bool((made >= 0).all())
        assert bool((made <= 1).all())
        torch.testing.assert_close(made.sum(1), torch.ones(7))
        torch.testing.assert_close(project_labels(made), made)

    def test_a_row_of_nothing_is_uniform(self) -> None:
        assert project_labels(torch.tensor([[-1.0, 0.0, 0.0, -2.0]])).tolist() == [[0.25] * 4]

    def test_one_class(self) -> None:
        with pytest.raises(DataError, match=r"labels is \(3, 1\); expected \(n, c\) with c >= 2"):
            project_labels(torch.ones(3, 1))


class TestRidgeHead:
    def test_is_least_squares_without_regularization(self) -> None:
        g = torch.Generator().manual_seed(0)
        features = torch.randn(9, 4, generator=g, dtype=torch.float64)
        labels = torch.randn(9, 3, generator=g, dtype=torch.float64)
        expected = torch.linalg.pinv(features) @ labels
        torch.testing.assert_close(ridge_head(features, labels, 1e-8), expected, rtol=1e-6, atol=1e-7)

    def test_is_the_minimum(self) -> None:
        g = torch.Generator().manual_seed(1)
        features, labels = torch.randn(5, 8, generator=g).double(), torch.randn(5, 2, generator=g).double()
        head = ridge_head(features, labels, 0.3).requires_grad_()
        value = (features @ head - labels).square().sum() + 0.3 * head.square().sum()
        (slope,) = torch.autograd.grad(value, head)
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-10)

    def test_errors(self) -> None:
        with pytest.raises(DataError, match=r"features is \(3, 2\) and labels \(4, 2\)"):
            ridge_head(torch.ones(3, 2), torch.ones(4, 2), 1.0)
        with pytest.raises(ModicumError, match=r"reg=0.0; expected a number > 0"):
            ridge_head(torch.ones(3, 2), torch.ones(3, 2), 0.0)


def test_the_gradient_of_a_virtual_step_in_a_linear_model() -> None:
    g = torch.Generator().manual_seed(0)
    theta, x = torch.randn(4, 3, generator=g).double(), torch.randn(6, 4, generator=g).double()
    labels = torch.rand(6, 3, generator=g).double().requires_grad_()
    real, y = torch.randn(9, 4, generator=g).double(), torch.arange(9) % 3

    def after(labels: torch.Tensor) -> torch.Tensor:
        # without rows that sum to one the gradient of the cross-entropy is sum(row) softmax - row
        step = x.T @ ((x @ theta).softmax(1) * labels.sum(1, keepdim=True) - labels) / 6
        return F.cross_entropy(real @ (theta - 0.5 * step), y)

    found = unrolled_gradient(
        lambda theta, n, labels: F.cross_entropy(x @ theta, labels),
        theta, [labels], 0.5, lambda theta: F.cross_entropy(real @ theta, y), steps=1,
    )  # fmt: skip
    (closed,) = torch.autograd.grad(after(labels), labels)
    torch.testing.assert_close(found.leaves[0], closed, rtol=1e-10, atol=1e-12)
    way = torch.randn(6, 3, generator=g).double()
    with torch.no_grad():
        slope = (after(labels + 1e-6 * way) - after(labels - 1e-6 * way)) / 2e-6
    torch.testing.assert_close(slope, (closed * way).sum(), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("first_order", [False, True])
def test_real_inputs_with_probabilities(first_order: bool) -> None:
    made = distilled(replace(FAST, first_order=first_order))
    rows = {tuple(row) for row in blobs().train.inputs.tolist()}
    assert all(tuple(row) in rows for row in made.dataset.inputs.tolist())
    assert made.dataset.targets is not None
    torch.testing.assert_close(made.dataset.targets.sum(1), torch.ones(6))
    start = made.snapshots[0].dataset.targets
    torch.testing.assert_close(start, torch.full((6, 3), 1 / 3))
    assert not torch.equal(made.dataset.targets, start)
    assert made.recipe.optimizer == "adamw"
    assert made.recipe.weight_decay == 0
    assert made.recipe.batch_size == 6


@pytest.mark.parametrize("first_order", [False, True])
def test_labels_learn_the_classes(first_order: bool) -> None:
    method = replace(FAST, iterations=120, lr_label=0.02, alpha=0.1, first_order=first_order, batch_real=60)
    made = distilled(method)
    assert made.dataset.targets is not None
    own = torch.arange(3).repeat_interleave(2)
    # the labels start at 1/3 each, and nothing tells which class a base sample has but how it teaches
    assert float(made.dataset.targets[torch.arange(6), own].mean()) > 0.45


class TestStudent:
    def test_begins_anew_when_the_loss_has_not_fallen(self) -> None:
        student, losses = Student(torch.zeros(2), 0.1, 3), [5.0, 4.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 9.0]
        stalled = [student.stalled(loss) for loss in losses]
        # means of three: 4, 3, 7/3, 2, 2, 2 at steps 3 to 8; the lowest at step 6
        assert stalled == [False] * 8 + [True]
        student.restart(torch.ones(2))
        assert student.lengths == [6]
        assert student.steps == 0
        assert student.theta.tolist() == [1.0, 1.0]

    def test_as_many_steps_as_the_last_three_fell(self) -> None:
        student = Student(torch.zeros(2), 0.1, 3)
        assert student.length == 1
        student.lengths = [100, 10, 20, 30]
        assert student.length == 20

    def test_goes_on_as_it_was(self) -> None:
        one, other = Student(torch.zeros(2), 0.1, 3), Student(torch.ones(2), 0.1, 3)
        for loss in (3.0, 2.0, 1.0):
            one.theta.grad = torch.ones(2)
            one.step()
            one.stalled(loss)
        other.load_state_dict(copy.deepcopy(one.state_dict()))
        for student in (one, other):
            student.theta.grad = torch.tensor([1.0, -1.0])
            student.step()
        assert torch.equal(one.theta, other.theta)
        assert one.stalled(5.0) == other.stalled(5.0)
        assert one.state_dict()["numbers"] == other.state_dict()["numbers"]


@pytest.mark.parametrize(
    "samples, size, window", [(6, 6, 50), (20, 10, 50), (50, 25, 50), (100, 50, 50), (101, 50, 200)]
)
def test_sizes_that_go_with_the_number_of_samples(samples: int, size: int, window: int) -> None:
    from modicum.distillation.ld import _Run

    run = _Run(FAST, blobs(150).train, Budget(keep=samples), Recipe(), Context())
    assert (run.size, run.student.window) == (size, window)


def test_errors() -> None:
    with pytest.raises(ModicumError, match="'ld' option alpha=0; expected a number > 0"):
        LD(alpha=0)
    with pytest.raises(ModicumError, match="'ld' option window=-1; expected an integer >= 0"):
        LD(window=-1)
