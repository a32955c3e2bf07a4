import pytest
import torch
from torch import nn

from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.losses import SogCLR, VICReg
from modicum.methods import make
from modicum.pretraining import pretrain
from modicum.pretraining.learner import Backbone, Plan, backbone_for
from modicum.pretraining.two_views import TwoViews
from modicum.training.recipe import Recipe

RECIPE = Recipe("convnet(width=4)", epochs=2, batch_size=16, optimizer="adamw", lr=1e-3)
SMALL = ("barlow-twins(hidden=16, dimension=8)", "vicreg(hidden=16, dimension=8)")


def data(n=64):
    draw = torch.Generator().manual_seed(0)
    train = Dataset(torch.rand(n, 3, 8, 8, generator=draw), None, info=Info(modality="image"))
    return Splits(train, train[:4], train[:4])


def learner(method, steps=10):
    train = data().train
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the head; the training loop does so
        return make(method).learner(train, backbone_for(RECIPE, train, 0), Plan(steps, 16, 2))


def test_views_pass_one_after_the_other():
    class Seen(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return x.flatten(1)

    sizes = []
    mine = TwoViews(Backbone(Seen(), 12), None, nn.Identity(), VICReg(), scale=0.5)
    x = torch.rand(5, 3, 2, 2)
    mine.backbone.forward = mine.backbone.network.forward
    losses, embeddings = mine(x, torch.arange(5), torch.arange(5))
    assert sizes == [5, 5]
    assert torch.equal(embeddings, x.flatten(1))
    torch.testing.assert_close(losses, 0.5 * VICReg()(x.flatten(1), x.flatten(1)).expand(5))


def test_the_positions_of_the_samples_reach_the_loss():
    mine = TwoViews(Backbone(nn.Linear(4, 4), 4), None, nn.Identity(), SogCLR(9, reduction="none"), indexed=True)
    losses, _ = mine(torch.rand(3, 4), torch.arange(3), torch.tensor([8, 0, 4]))
    assert losses.shape == (3,)
    assert mine.loss.u.nonzero().flatten().tolist() == [0, 4, 8]


@pytest.mark.parametrize("method", SMALL)
def test_the_projector_has_three_layers(method):
    sizes = [tuple(layer.weight.shape) for layer in learner(method).head if isinstance(layer, nn.Linear)]
    width = learner(method).backbone.width
    assert sizes == [(16, width), (16, 16), (8, 16)]
    assert (learner(method).head[-1].bias is None) == method.startswith("vicreg")


def test_the_options_reach_the_losses():
    barlow = learner("barlow-twins(weight=0.25, scale=3.0, hidden=16, dimension=8)")
    assert (barlow.loss.weight, barlow.scale) == (0.25, 3.0)
    vicreg = learner("vicreg(invariance=1.0, variance=2.0, covariance=3.0, hidden=16, dimension=8)")
    assert (vicreg.loss.invariance, vicreg.loss.variance, vicreg.loss.covariance) == (1, 2, 3)
    options = "temperature=0.3, gamma=0.6, rho=0.2, eta=0.02, beta=0.7, lowest=0.1, highest=0.9"
    loss = learner(f"isogclr({options}, hidden=16)").loss
    found = (loss.temperature, loss.gamma, loss.rho, loss.eta, loss.beta, loss.lowest, loss.highest)
    assert found == (0.3, 0.6, 0.2, 0.02, 0.7, 0.1, 0.9)
    assert (loss.n, loss.reduction) == (64, "none")


@pytest.mark.parametrize("method", ["sogclr(hidden=16, dimension=8)", "isogclr(hidden=16, dimension=8)"])
def test_after_an_epoch_every_sample_was_seen(method):
    done = pretrain(data(), method, RECIPE)
    assert bool((done.learner.loss.u > 0).all())
    if method.startswith("isogclr"):
        assert done.learner.loss.tau.unique().numel() > 32
        assert bool(((done.learner.loss.tau >= 0.05) & (done.learner.loss.tau <= 1)).all())


def test_with_frozen_temperatures_isogclr_trains_as_sogclr_does():
    a, b = (
        pretrain(data(), f"{m}(hidden=16, dimension=8{o})", RECIPE)
        for m, o in (("sogclr", ""), ("isogclr", ", eta=0.0"))
    )
    mine, theirs = a.encoder.state_dict(), b.encoder.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    "text, message",
    [
        ("barlow-twins(weight=-1.0)", "weight=-1.0; expected a number >= 0"),
        ("barlow-twins(hidden=0)", "hidden=0; expected an integer > 0"),
        ("vicreg(covariance=-1.0)", "covariance=-1.0; expected a number >= 0"),
        ("vicreg(dimension=1.5)", "dimension=1.5; expected an integer > 0"),
        ("sogclr(temperature=0.0)", "temperature=0.0; expected a number > 0"),
        ("sogclr(gamma=1.5)", r"gamma=1.5; expected a number in \(0, 1\]"),
        ("isogclr(eta=-1.0)", "eta=-1.0; expected a number >= 0"),
        ("dino(momentum=1.5)", r"momentum=1.5; expected a number in \[0, 1\]"),
        ("dino(prototypes=0)", "prototypes=0; expected an integer > 0"),
    ],
)
def test_wrong_options(text, message):
    with pytest.raises(ModicumError, match=message):
        make(text)


def test_temperatures_that_do_not_fit_together_are_refused_before_training():
    with pytest.raises(ModicumError, match=r"temperature=0.1; expected one from 0.2 to 1.0"):
        pretrain(data(), "isogclr(lowest=0.2)", RECIPE)
