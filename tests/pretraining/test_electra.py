import math

import pytest
import torch
import torch.nn.functional as F

from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.flops import count_flops
from modicum.models import MLP, Transformer
from modicum.pretraining import ELECTRA, Backbone, MaskedLM, Plan, pretrain
from modicum.pretraining.tokens import choose_positions, hide_tokens, mean_in_batch
from modicum.training.recipe import Recipe

VOCABULARY, LENGTH, N = 40, 12, 32


def data(sources=None):
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(1, VOCABULARY, (N, LENGTH), generator=draw)
    x[torch.arange(LENGTH) >= torch.randint(3, LENGTH + 1, (N, 1), generator=draw)] = 0
    info = Info("unlabeled", "text", vocabulary=tuple(f"w{i}" for i in range(VOCABULARY)))
    return Dataset(x, info=info, sources=sources)


def made(method=None, width=16, length=LENGTH):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        backbone = Backbone(Transformer(VOCABULARY, length, 1, width=width, heads=2, layers=2), width)
        backbone.network.head = torch.nn.Identity()
        return (method or ELECTRA()).learner(data(), backbone, Plan(10, N, 10))


def losses(learner, x, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        out, embeddings = learner(x, torch.arange(len(x)), torch.arange(len(x)))
    assert out.shape == (len(x),)
    assert embeddings.shape == (len(x), learner.backbone.width)
    return out


def silent(learner):
    """Its output layers give zero."""
    for parameter in [*learner.generator.head.body[-1].parameters(), *learner.discriminator[-1].parameters()]:
        torch.nn.init.zeros_(parameter)
    return learner


class Guess(torch.nn.Module):
    """A generator with given logits (V,), or the originals where there are none."""

    def __init__(self, originals=None, logits=None):
        super().__init__()
        self.originals, self.logits = originals, logits

    def forward(self, h, present, positions, embeddings):
        if self.logits is not None:
            return self.logits.expand(*positions.shape, VOCABULARY)
        return 100.0 * F.one_hot(self.originals.gather(1, positions), VOCABULARY)


def test_with_silent_output_layers_the_losses_are_those_of_a_guess():
    learner = silent(made())
    total = losses(learner, data().inputs).mean()
    torch.testing.assert_close(learner.terms, torch.tensor([math.log(VOCABULARY), math.log(2)]))
    torch.testing.assert_close(total, learner.terms[0] + 50 * learner.terms[1])


def test_with_a_generator_that_is_always_right_nothing_is_replaced():
    x, learner = data().inputs, made()
    learner.generator = Guess(originals=x)
    assert torch.equal(learner.corrupted(x)[0], x)
    torch.nn.init.zeros_(learner.discriminator[-1].weight)
    torch.nn.init.constant_(learner.discriminator[-1].bias, -3.0)
    losses(learner, x)
    torch.testing.assert_close(learner.terms[1], F.softplus(torch.tensor(-3.0)))  # every label is `original`


def test_a_generator_that_knows_nothing_is_right_once_in_v():
    x, learner = data().inputs.repeat(400, 1), made()
    learner.generator = Guess(logits=torch.zeros(VOCABULARY))
    corrupt, _, positions, chosen = learner.corrupted(x)
    replaced = (corrupt != x).gather(1, positions)[chosen].float()
    expected = 1 - 1 / VOCABULARY
    assert abs(float(replaced.mean()) - expected) < 4 * math.sqrt(expected / VOCABULARY / len(replaced))
    untouched = torch.ones_like(x, dtype=torch.bool).scatter(1, positions, ~chosen)
    assert torch.equal(corrupt[untouched], x[untouched])


def test_the_discriminator_sends_no_gradient_to_the_generator():
    x, learner = data().inputs, made(ELECTRA(tied=False))
    total = losses(learner, x)
    corrupt = learner.corrupted(x)[0]
    logits, _ = learner.detect(x, corrupt)
    F.binary_cross_entropy_with_logits(logits, (corrupt != x).float()).backward()
    for parameter in [*learner.generator.parameters(), *learner.own.parameters(), learner.mask]:
        assert parameter.grad is None
    total.mean().backward()
    assert all(parameter.grad is not None for parameter in learner.generator.parameters())
    assert all(parameter.grad is not None for parameter in learner.own.parameters())


def test_without_the_discriminator_it_is_masked_language_modeling_of_the_generator():
    x, learner = data().inputs, made(ELECTRA(weight=0.0))
    losses(learner, x).mean().backward()
    found = {name: parameter.grad.clone() for name, parameter in learner.named_parameters()}
    learner.zero_grad()
    draw = torch.Generator().manual_seed(0)
    positions, chosen = choose_positions(x, 0.15, draw)
    seen = hide_tokens(x, positions, chosen, VOCABULARY, draw, masked=0.85)
    logits = learner.guess(x, seen, positions)
    F.cross_entropy(logits[chosen], x.gather(1, positions)[chosen]).backward()
    for name, parameter in learner.named_parameters():
        if parameter.grad is None:
            assert not found[name].any(), name
        else:
            torch.testing.assert_close(found[name], parameter.grad, msg=name)
    assert {"generator.norm.weight", "backbone.network.embedding.weight", "mask"} <= {
        name for name, gradient in found.items() if gradient.any()
    }


def test_padding_enters_no_loss():
    x, learner = data().inputs, made(length=2 * LENGTH)
    corrupt = learner.corrupted(x)[0]
    found = []
    for texts, others in ((x, corrupt), (F.pad(x, (0, LENGTH)), F.pad(corrupt, (0, LENGTH), value=3))):
        logits, _ = learner.detect(texts, others)
        each = F.binary_cross_entropy_with_logits(logits, (others != texts).float(), reduction="none")
        found.append(mean_in_batch(each, texts != 0).mean())
    torch.testing.assert_close(*found)


def test_padding_that_the_generator_puts_in_is_read_as_a_token():
    x, learner = data().inputs, made()
    only = torch.full((VOCABULARY,), -100.0)
    only[0] = 0
    learner.generator = Guess(logits=only)
    corrupt, _, positions, chosen = learner.corrupted(x)
    assert bool((corrupt == 0).gather(1, positions)[chosen].all())
    states = learner.detect(x, corrupt)[1]
    network = learner.backbone.network
    assert torch.equal(states, network.encode(network.embed(corrupt), x != 0))


def test_the_loss_at_chosen_positions_alone():
    x, learner = data().inputs, made(ELECTRA(positions="masked"))
    losses(learner, x)
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(draw.get_state())
        corrupt, _, positions, chosen = learner.corrupted(x)
    logits = learner.detect(x, corrupt)[0].gather(1, positions)[chosen]
    labels = (corrupt != x).gather(1, positions)[chosen].float()
    torch.testing.assert_close(learner.terms[1], F.binary_cross_entropy_with_logits(logits, labels))


def test_the_generator_is_narrow_and_shares_the_embeddings():
    tied, untied = made(width=128), made(ELECTRA(tied=False), width=128)
    assert tied.generator.narrow.weight.shape == (32, 128)
    assert [block.heads for block in tied.generator.blocks] == [1, 1]
    names = {name for name, _ in tied.named_parameters()}
    assert not any("embedding" in name for name in names if not name.startswith("backbone"))
    assert len(list(untied.parameters())) == len(names) + 2
    assert [block.heads for block in made(ELECTRA(generator=1.0), width=128).generator.blocks] == [2, 2]


def test_the_passes_of_both_are_counted():
    recipe = Recipe("transformer(width=16, heads=2, layers=2)", steps=1, batch_size=N, optimizer="adamw", lr=1e-3)
    splits = Splits(data(), data(), data())
    learner, x = made(), data().inputs
    with count_flops() as both:
        losses(learner, x)
    with count_flops() as discriminator:
        learner.detect(x, x)
    positions, _ = choose_positions(x, 0.15, torch.Generator())
    with count_flops() as generator:
        learner.guess(x, x, positions)
    assert both.flops == discriminator.flops + generator.flops
    assert pretrain(splits, "electra", recipe).ledger.total().forward_flops == both.flops


@pytest.mark.parametrize("method", ["electra(generator=0.5, weight=5.0)", "masked-lm"])
def test_learns_a_language_with_rules(method):
    first = torch.randint(2, 20, (512, 1), generator=torch.Generator().manual_seed(0))
    x = (first + torch.arange(10)) % 18 + 2  # each token follows from the one before
    splits = Splits(*[Dataset(x, info=Info("unlabeled", "text", vocabulary=tuple(f"w{i}" for i in range(20))))] * 3)
    recipe = Recipe("transformer(width=32, heads=2, layers=1)", epochs=15, batch_size=64, optimizer="adamw", lr=1e-2)
    history = pretrain(splits, method, recipe).history["loss"]
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize(
    "options, text",
    [
        ({"weight": -1.0}, "option weight=-1.0; expected a number >= 0"),
        ({"share": 0.0}, "option share=0.0; expected a number in (0, 1)"),
        ({"masked": 1.5}, "option masked=1.5; expected a number in [0, 1]"),
        (
            {"generator": 2.0},
            "option generator=2.0; expected a number in (0, 1]",
        ),
        ({"temperature": 0.0}, "option temperature=0.0; expected a number > 0"),
        ({"positions": "some"}, "option positions='some'; expected 'all', 'masked'"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ModicumError) as error:
        ELECTRA(**options)
    assert str(error.value) == f"method 'electra' {text}"


def test_another_network_and_an_empty_text():
    with pytest.raises(ModicumError, match="model is a MLP; method 'electra' needs states of tokens"):
        ELECTRA().learner(data(), Backbone(MLP((4,), 2, hidden=8), 8), Plan(1, 2, 1))
    empty = data().replace(inputs=torch.cat([torch.zeros(1, LENGTH, dtype=torch.int64), data().inputs[1:]]))
    recipe = Recipe("transformer(width=16, heads=2, layers=1)", steps=1)
    for method in (ELECTRA(), MaskedLM()):
        with pytest.raises(ModicumError, match="inputs: sample 0 holds only padding"):
            pretrain(Splits(empty, empty, empty), method, recipe)
