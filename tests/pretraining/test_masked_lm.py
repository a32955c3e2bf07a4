import math

import pytest
import torch
import torch.nn.functional as F

from modicum.dataset import Dataset, Info
from modicum.errors import ModicumError
from modicum.models import Transformer
from modicum.pretraining import Backbone, MaskedLM, Plan
from modicum.pretraining.tokens import choose_positions, embed_masked, hide_tokens

VOCABULARY, LENGTH, N = 40, 12, 32


def made(method=None, length=LENGTH):
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(1, VOCABULARY, (N, LENGTH), generator=draw)
    x[torch.arange(LENGTH) >= torch.randint(3, LENGTH + 1, (N, 1), generator=draw)] = 0
    info = Info("unlabeled", "text", vocabulary=tuple(f"w{i}" for i in range(VOCABULARY)))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        backbone = Backbone(Transformer(VOCABULARY, length, 1, width=16, heads=2), 16)
        return (method or MaskedLM()).learner(Dataset(x, info=info), backbone, Plan(10, N, 10)), x


def losses(learner, x):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return learner(x, x, x)[0]


def test_equals_the_cross_entropy_at_the_chosen_positions():
    learner, x = made()
    draw = torch.Generator().manual_seed(0)
    positions, chosen = choose_positions(x, 0.15, draw)
    seen = hide_tokens(x, positions, chosen, VOCABULARY, draw, masked=0.8, random=0.1)
    network = learner.backbone.network
    states = network.encode(embed_masked(network, seen, learner.mask), x != 0)
    rows = torch.arange(N)[:, None].expand_as(positions)[chosen]
    logits = learner.head(states[rows, positions[chosen]], network.embedding.weight)
    expected = F.cross_entropy(logits, x[rows, positions[chosen]])
    torch.testing.assert_close(losses(learner, x).mean(), expected)


def test_with_a_silent_output_layer_the_loss_is_that_of_a_guess():
    learner, x = made()
    for parameter in learner.head.body[-1].parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(losses(learner, x).mean(), torch.tensor(math.log(VOCABULARY)))


def test_the_embeddings_are_those_of_the_output_layer():
    learner, x = made()
    names = {name for name, _ in learner.named_parameters()}
    assert {name for name in names if "embedding" in name} == {"backbone.network.embedding.weight"}
    losses(learner, x).mean().backward()
    unseen = learner.backbone.network.embedding.weight.grad[0]
    assert bool(unseen.any())  # padding is never read at a place that counts, but it is one of the answers


@pytest.mark.parametrize("name", ["share", "masked", "random"])
def test_options_that_make_no_sense(name):
    with pytest.raises(ModicumError, match=rf"option {name}=1.5; expected a number in"):
        MaskedLM(**{name: 1.5})
