"""The pilot: a prior that knows helps, one that knows nothing does not, and all of it is charged."""

import pytest
import torch
from torch import nn

import modicum
from modicum.analysis import predict_help
from modicum.analysis.rela_pilot import _verdict
from modicum.context import Context
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.training.recipe import Recipe

RECIPE = Recipe("mlp(hidden=16)", batch_size=32, optimizer="adamw", lr=1e-3)
BASE = {"base": "simclr(hidden=16, dimension=8, augment='crops')", "light": "crops"}


class Blind(nn.Module):
    """Sees nothing of the sample but noise."""

    def forward(self, x):
        return torch.sin(1e4 * x.flatten(1)[:, 10:20].cumsum(1))


def pilot(prior, ctx=None, data=None, **options):
    return predict_help(
        data or modicum.load("digits"), prior, RECIPE, ctx, **{**BASE, "samples": 400, "steps": 30, **options}
    )


def test_numbers_are_those_of_a_pilot_and_charged_as_choosing():
    ledger = Ledger()
    seen = pilot("pixels", Context(ledger=ledger))
    assert seen.direct > seen.untrained
    assert 0.2 < seen.transport <= 1
    assert seen.steps == 30
    assert ledger.total("choose").flops == ledger.total().flops == seen.flops > 0
    assert "the prior used directly gives" in seen.sentence
    assert seen == pilot("pixels")


def test_a_blind_prior_is_found_out():
    seen = pilot(Blind(), steps=60)
    assert seen.direct < 0.4
    assert seen.verdict == "does not help"
    assert seen.transport < seen.transport_untrained


def test_without_labels_it_rests_on_transport():
    from dataclasses import replace

    data = modicum.load("digits")
    bare = [d.replace(targets=None, info=replace(d.info, task="unlabeled", classes=())) for d in data]
    seen = pilot(Blind(), data=modicum.Splits(*bare))
    assert seen.direct is seen.relabeled is seen.error is None
    assert seen.verdict == "does not help"
    assert seen.sentence.startswith("Without labels only transport can be looked at")


@pytest.mark.parametrize(
    "relabeled, direct, verdict",
    [(0.7, 0.9, "helps"), (0.51, 0.9, "unclear"), (0.3, 0.9, "does not help"), (0.51, 0.1, "does not help")],
)
def test_verdicts(relabeled, direct, verdict):
    accuracy = {"direct": direct, "untrained": 0.2, "base": 0.5, "relabeled": relabeled}
    found, sentence = _verdict(accuracy, 0.01, 0.5, 0.3, 60, "p")
    assert found == verdict
    assert "50 % of what the base learns is linear in the prior's features" in sentence


@pytest.mark.parametrize("change, text", [({"samples": 5}, "samples=5; expected"), ({"steps": 0}, "steps=0; expected")])
def test_too_little(change, text):
    with pytest.raises(ModicumError, match=text):
        pilot("pixels", **change)
