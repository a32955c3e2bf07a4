import copy

import numpy as np
import pytest
import torch

from modicum.training.lars import LARS
from modicum.training.recipe import Recipe
from modicum.training.schedule import make_optimizer


def by_hand(start, gradients, lr, momentum, decay, trust=0.02, clip=True):
    theta, velocity = start.copy(), np.zeros_like(start)
    for gradient in gradients:
        if theta.ndim > 1:
            size, slope = np.linalg.norm(theta), np.linalg.norm(gradient)
            factor = trust * size / (slope + decay * size) if size else 1.0
            factor = min(factor / lr, 1.0) if clip and size else factor
            gradient = factor * (gradient + decay * theta)
        velocity = momentum * velocity + gradient
        theta = theta - lr * velocity
    return theta


def moved(optimizer_of, start, gradients):
    parameter = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = optimizer_of([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("momentum, decay", [(0.9, 0.01), (0.0, 0.0), (0.5, 1.0)])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2, 2), (5,)])
def test_it_is_the_formula(shape, momentum, decay, clip):
    random = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 100.0):
        start, gradients = random.normal(size=shape), scale * random.normal(size=(6, *shape))
        ours = moved(lambda p: LARS(p, 0.3, momentum, decay, clip=clip), start, gradients)
        expected = by_hand(start, gradients, 0.3, momentum, decay, clip=clip)
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)


def test_a_step_has_the_length_of_the_weights_however_long_the_gradient_is():
    for factor in (10.0, 1e4):
        w = torch.full((4, 4), 0.5)
        g = torch.full((4, 4), factor)
        after = moved(lambda p: LARS(p, 1.0, 0.0), w.numpy(), [g.numpy()])
        assert np.linalg.norm(after - w.numpy()) == pytest.approx(0.02 * 2, rel=1e-5)


def test_clipped_it_is_never_longer_than_a_step_of_sgd():
    w, g = np.full((2, 2), 100.0), np.full((2, 2), 1e-3)
    assert moved(lambda p: LARS(p, 0.1, 0.0), w, [g]).ravel().tolist() == pytest.approx([100 - 1e-4] * 4, abs=1e-12)
    free = moved(lambda p: LARS(p, 0.1, 0.0, clip=False), w, [g])
    assert np.linalg.norm(free - w) == pytest.approx(0.1 * 0.02 * 200, rel=1e-4)


def test_biases_are_neither_rescaled_nor_decayed():
    w, g = np.array([100.0, 200.0]), np.array([64.0, 0.0])
    assert moved(lambda p: LARS(p, 0.5, 0.0, 0.5), w, [g]).tolist() == [68.0, 200.0]


def test_weights_of_zeros_move_and_a_rate_of_zero_does_not():
    assert moved(lambda p: LARS(p, 0.1, 0.0), np.zeros((2, 2)), [np.ones((2, 2))]).ravel().tolist() == [-0.1] * 4
    assert moved(lambda p: LARS(p, 0.0), np.ones((2, 2)), [np.ones((2, 2))]).ravel().tolist() == [1.0] * 4
    assert np.isfinite(moved(lambda p: LARS(p, 0.1), np.ones((2, 2)), [np.zeros((2, 2))])).all()


def test_stacked_models_move_as_each_alone():
    random = np.random.default_rng(1)
    for shape in ((3, 4), (5,), ()):
        start, gradients = random.normal(size=(3, *shape)), random.normal(size=(4, 3, *shape))
        together = moved(lambda p: LARS(p, 0.3, weight_decay=0.1, stacked=True), start, gradients)
        for i in range(3):
            alone = moved(lambda p: LARS(p, 0.3, weight_decay=0.1), start[i], gradients[:, i])
            np.testing.assert_allclose(together[i], alone, rtol=1e-12)


def test_a_recipe_makes_it_and_the_closure_is_called():
    w = torch.ones(2, 2, requires_grad=True)
    optimizer = make_optimizer(Recipe(optimizer="lars", lr=0.5, momentum=0.8, weight_decay=0.1), [w])
    assert type(optimizer) is LARS
    group = optimizer.param_groups[0]
    assert [group[key] for key in ("lr", "momentum", "weight_decay", "trust", "clip")] == [0.5, 0.8, 0.1, 0.02, True]

    def closure():
        loss = (w**2).sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 4
    assert float(w.detach().max()) < 1


def test_what_has_no_gradient_stays_and_keeps_no_state():
    a, b = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    optimizer = LARS([a, b], 0.1)
    optimizer.step()
    a.grad = torch.ones(2, 2)
    optimizer.step()
    assert b.detach().tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert list(optimizer.state) == [a]


def test_it_goes_on_from_its_state():
    random = np.random.default_rng(2)
    start, gradients = random.normal(size=(3, 3)), torch.tensor(random.normal(size=(4, 3, 3)))
    w = torch.tensor(start, requires_grad=True)
    optimizer = LARS([w], 0.3, weight_decay=0.1)
    for gradient in gradients[:2]:
        w.grad = gradient
        optimizer.step()
    v = w.detach().clone().requires_grad_()
    other = LARS([v], 1.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, parameter in ((optimizer, w), (other, v)):
        for gradient in gradients[2:]:
            parameter.grad = gradient
            each.step()
    assert torch.equal(w, v)
