import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import modicum
from modicum.errors import ModicumError
from modicum.methods import make
from modicum.pretraining import SimSiam
from modicum.pretraining.learner import Plan, backbone_for
from modicum.training.recipe import Recipe

RECIPE = Recipe("mlp(hidden=32)")


@pytest.fixture(scope="module")
def digits():
    return modicum.load("digits").train


def learner_of(data, **options):
    options = {"hidden": 32, "dimension": 16, "bottleneck": 8, "augment": "none", **options}
    return SimSiam(**options).learner(data, backbone_for(RECIPE, data, 0), Plan(10, 64, 1.0))


def batch(data, size=64, start=0):
    x = data.prepare(data.inputs[start : start + size])
    return x, torch.arange(size), torch.arange(size)


def noisy(step):
    draw = torch.Generator().manual_seed(step)
    return lambda inputs, count: [inputs + 0.5 * torch.randn(inputs.shape, generator=draw) for _ in range(count)]


def trained(learner, data, steps=100):
    """The last loss, and the standard deviation of unit vectors over that of random directions."""
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for step in range(steps):
        x, targets, indices = batch(data, 64, 64 * step % 960)
        learner.views = noisy(step)
        losses, embeddings = learner(x, targets, indices)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        learner.after()
    unit = F.normalize(embeddings.detach(), dim=1)
    return float(losses.detach().mean()), float(unit.std(0).mean()) * math.sqrt(unit.shape[1])


class Leaky(nn.Module):
    """The same loss with gradients through the target."""

    def forward(self, p, z):
        return -F.cosine_similarity(p, z)


def test_the_loss_is_half_of_both_negative_cosines(digits):
    learner = learner_of(digits)
    x, targets, indices = batch(digits)
    a, b = x, x.flip(-1)
    learner.views = lambda inputs, count: [a, b]
    losses, embeddings = learner(x, targets, indices)
    z = [learner.head(learner.backbone(view)) for view in (a, b)]
    cosines = [F.cosine_similarity(learner.predictor(p), t) for p, t in zip(z, reversed(z))]
    torch.testing.assert_close(losses, -(cosines[0] + cosines[1]) / 2)
    torch.testing.assert_close(embeddings, z[0])
    assert bool((losses.abs() <= 1).all())
    learner.views = lambda inputs, count: [b, a]
    torch.testing.assert_close(learner(x, targets, indices)[0], losses)


def test_a_perfect_prediction_has_loss_minus_1(digits):
    learner = learner_of(digits)
    learner.predictor = nn.Identity()
    torch.testing.assert_close(learner(*batch(digits))[0], -torch.ones(64))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_projector_ends_in_batch_norm_without_scale_and_the_predictor_in_a_linear_layer(digits, layers):
    learner = learner_of(digits, layers=layers)
    assert sum(isinstance(layer, nn.Linear) for layer in learner.head) == layers
    assert isinstance(learner.head[-1], nn.BatchNorm1d)
    assert not learner.head[-1].affine
    widths = [(layer.in_features, layer.out_features) for layer in learner.predictor if isinstance(layer, nn.Linear)]
    assert widths == [(16, 8), (8, 16)]
    assert isinstance(learner.predictor[-1], nn.Linear)
    z = learner.head(learner.backbone(batch(digits)[0]))
    torch.testing.assert_close(z.mean(0), torch.zeros(16), atol=1e-5, rtol=0)


def test_only_the_stopped_gradient_keeps_embeddings_apart(digits):
    kept, lost = learner_of(digits), learner_of(digits)
    lost.loss = Leaky()
    for learner in (kept, lost):
        learner.head[-1] = nn.Identity()  # with BatchNorm they fall onto a line, which is no single point
    _, spread = trained(kept, digits)
    assert spread > 0.7
    loss, spread = trained(lost, digits)
    assert loss < -0.99
    assert spread < 0.15


@pytest.mark.parametrize("name", ["hidden", "dimension", "bottleneck", "layers"])
def test_options_that_make_no_sense(name):
    with pytest.raises(ModicumError, match=f"method 'simsiam' option {name}=0; expected an integer"):
        make(f"simsiam({name}=0)")
