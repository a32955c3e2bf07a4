import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import modicum
from modicum.errors import ModicumError
from modicum.methods import make
from modicum.pretraining import BYOL
from modicum.pretraining.learner import Plan, backbone_for
from modicum.training.recipe import Recipe

RECIPE = Recipe("mlp(hidden=32)")
D = 16


def learner_of(data, steps=10, seed=0, **options):
    options = {"hidden": 32, "dimension": D, "augment": "none", **options}
    return BYOL(**options).learner(data, backbone_for(RECIPE, data, seed), Plan(steps, 64, 1.0))


@pytest.fixture(scope="module")
def digits():
    return modicum.load("digits").train


def batch(data, size=64, start=0):
    x = data.prepare(data.inputs[start : start + size])
    return x, torch.arange(size), torch.arange(size)


def spread(embeddings):
    """Standard deviation of unit vectors, over that of random directions."""
    return float(F.normalize(embeddings.detach(), dim=1).std(0).mean()) * math.sqrt(embeddings.shape[1])


def noisy(step):
    draw = torch.Generator().manual_seed(step)
    return lambda inputs, count: [inputs + 0.5 * torch.randn(inputs.shape, generator=draw) for _ in range(count)]


def trained(learner, data, steps=150):
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.3, momentum=0.9)
    for step in range(steps):
        x, targets, indices = batch(data, 64, 64 * step % 960)
        learner.views = noisy(step)
        losses, embeddings = learner(x, targets, indices)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        learner.after()
    return embeddings


def test_the_loss_is_two_minus_two_cosines_both_ways(digits):
    learner = learner_of(digits)
    x, targets, indices = batch(digits)
    a, b = x, x.flip(-1)
    learner.views = lambda inputs, count: [a, b]
    losses, embeddings = learner(x, targets, indices)
    z = [learner.head(learner.backbone(view)) for view in (a, b)]
    far = [learner.teacher(view) for view in (b, a)]
    cosines = [F.cosine_similarity(learner.predictor(p), t) for p, t in zip(z, far)]
    torch.testing.assert_close(losses, 4 - 2 * (cosines[0] + cosines[1]))
    torch.testing.assert_close(embeddings, z[0])
    learner.views = lambda inputs, count: [b, a]
    torch.testing.assert_close(learner(x, targets, indices)[0], losses)


def test_with_no_predictor_no_lag_and_equal_views_the_loss_is_0(digits):
    learner = learner_of(digits, momentum=0.0, final_momentum=None)
    learner.predictor = nn.Identity()
    learner.after()
    losses, _ = learner(*batch(digits))
    torch.testing.assert_close(losses, torch.zeros(64), atol=1e-5, rtol=0)


def test_no_gradient_reaches_the_copy(digits):
    learner = learner_of(digits)
    learner(*batch(digits))[0].mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in learner.teacher.parameters())
    others = (learner.backbone, learner.head, learner.predictor)
    assert all(p.grad is not None for module in others for p in module.parameters())


@pytest.mark.parametrize("final", [1.0, 0.9, None])
def test_the_copy_follows_with_the_momentum_of_the_step(digits, final):
    learner = learner_of(digits, steps=4, momentum=0.6, final_momentum=final)
    weight, mean = learner.head[0].weight, learner.head[0].weight.detach().clone()
    for step in range(4):
        with torch.no_grad():
            weight.add_(1.0)
        m = 0.6 if final is None else final - (final - 0.6) * (math.cos(math.pi * step / 4) + 1) / 2
        learner.after()
        mean = m * mean + (1 - m) * weight.detach()
    torch.testing.assert_close(learner.teacher.network[1][0].weight, mean)
    assert int(learner.step) == 4


def test_the_statistics_of_batch_norm_are_copied(digits):
    learner = learner_of(digits)
    learner(*batch(digits))
    learner.after()
    assert torch.equal(learner.teacher.network[1][1].running_mean, learner.head[1].running_mean)
    assert int(learner.head[1].num_batches_tracked) == 2  # a pass for each view


def test_only_the_predictor_keeps_embeddings_apart(digits):
    kept, lost = (learner_of(digits, momentum=0.5, final_momentum=None) for _ in range(2))
    lost.predictor = nn.Identity()
    assert spread(trained(kept, digits)) > 0.5
    assert spread(trained(lost, digits)) < 0.1


@pytest.mark.parametrize(
    "options, text",
    [
        ("momentum=-0.1", r"method 'byol' option momentum=-0.1; expected a number in \[0, 1\]"),
        ("final_momentum=2.0", r"final_momentum=2.0; expected a number in \[0, 1\]"),
        ("hidden=0", "hidden=0; expected an integer"),
        ("dimension=2.5", "dimension=2.5; expected an integer"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ModicumError, match=text):
        make(f"byol({options})")
