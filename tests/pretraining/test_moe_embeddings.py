import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.losses import MultipleNegatives
from modicum.models import ExpertTransformer, Transformer
from modicum.pretraining import Backbone, MoEEmbeddings, Plan, pretrain
from modicum.pretraining.moe_embeddings import draw_spans, load_balance, shared_information
from modicum.pretraining.saved import save_encoder
from modicum.store import Store
from modicum.training.recipe import Recipe

VOCABULARY, LENGTH, N = 40, 12, 48
RECIPE = Recipe(
    "transformer(width=16, heads=2, layers=2)", epochs=2, batch_size=16, optimizer="adamw", lr=1e-3, weight_decay=0.1
)


def data(domains=3):
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(1, VOCABULARY, (N, LENGTH), generator=draw)
    x[torch.arange(LENGTH) >= torch.randint(3, LENGTH + 1, (N, 1), generator=draw)] = 0
    names = tuple(f"domain {i}" for i in range(domains))
    info = Info("unlabeled", "text", vocabulary=tuple(f"w{i}" for i in range(VOCABULARY)), sources=names)
    return Dataset(x, info=info, sources=torch.arange(N) % domains if domains else None)


def learned(method, columns=None, ctx=None, **changes):
    columns = data() if columns is None else columns
    return pretrain(Splits(columns, columns, columns), method, replace(RECIPE, **changes), ctx)


def made(method, columns=None):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        backbone = Backbone(Transformer(VOCABULARY, LENGTH, 1, width=16, heads=2), 16)
        return method.learner(columns or data(), backbone, Plan(10, N, 10)), backbone


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    share=st.sampled_from([0.1, 0.25, 0.5, 0.7, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_span_is_a_run_of_the_text(lengths, share, seed):
    x = (torch.arange(12) + 1).expand(len(lengths), 12) * (torch.arange(12) < torch.tensor(lengths)[:, None])
    spans = draw_spans(x, share, torch.Generator().manual_seed(seed))
    assert spans.shape == (len(x), math.ceil(share * 12 - 1e-9))
    for row, length in zip(spans.tolist(), lengths):
        tokens = math.ceil(share * length - 1e-9)
        assert row[:tokens] == list(range(row[0], row[0] + tokens))
        assert 1 <= row[0] <= length - tokens + 1
        assert not any(row[tokens:])


def test_spans_begin_everywhere():
    x = (torch.arange(6) + 1).repeat(6000, 1)
    starts = draw_spans(x, 0.5, torch.Generator().manual_seed(0))[:, 0]
    shares = torch.bincount(starts, minlength=5)[1:] / len(x)
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.02, rtol=0)


def test_the_loss_is_that_of_two_spans_after_the_pooler():
    learner, backbone = made(MoEEmbeddings())
    x, at = data().inputs, torch.arange(N)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        losses, embeddings = learner(x, at, at)
    draw = torch.Generator().manual_seed(5)
    a, b = (learner.pooler(backbone(draw_spans(x, 0.5, draw))) for _ in range(2))  # experts are copies as yet
    torch.testing.assert_close(losses, MultipleNegatives(reduction="none")(a, b))
    torch.testing.assert_close(embeddings, a)


def test_one_expert_is_dense_fine_tuning():
    one, none = learned("moe-embeddings(experts=1)", data(1)), learned("moe-embeddings", data(0))
    assert one.history["loss"] == none.history["loss"]
    assert one.encoder.network.count == none.encoder.network.count == 1
    told = learned("moe-embeddings(experts=1)", data(3))
    assert told.encoder.network.count == 1
    assert len(told.encoder.network.domains) == 3
    assert told.history["loss"] != one.history["loss"]


def test_an_expert_that_no_text_of_a_batch_needs_stays_as_it_was():
    first = data().replace(sources=torch.tensor([0, 2] * (N // 2)))
    before = made(MoEEmbeddings(), first)[0].backbone.network
    done = learned("moe-embeddings", first, steps=3).encoder.network
    start = learned("moe-embeddings", first, steps=1, lr=1e-12).encoder.network
    assert len(before.experts) == 2
    for layer, old in zip(done.experts, start.experts):
        moved = [not torch.allclose(a[0].weight, b[0].weight, atol=1e-6) for a, b in zip(layer, old)]
        assert moved == [True, False, True]
    assert [bool(domain.any()) for domain in done.domains] == [True, False, True]


def test_experts_cost_what_one_dense_encoder_costs():
    experts, dense = (learned(f"moe-embeddings(experts={n})").ledger.total() for n in (3, 1))
    assert experts.forward_flops == dense.forward_flops
    assert experts.backward_flops == dense.backward_flops
    assert experts.parameters > dense.parameters


def test_random_routing_deals_the_domains_out_to_other_texts():
    own, other = (made(MoEEmbeddings(routing=r))[0].domains for r in ("enforced", "random"))
    assert torch.equal(own, data().sources)
    assert not torch.equal(own, other)
    assert torch.equal(own.bincount(), other.bincount())
    assert torch.equal(other, made(MoEEmbeddings(routing="random"))[0].domains)


@pytest.mark.parametrize("routing, top", [("sentence", 1), ("sentence-top", 2), ("token", 2)])
@pytest.mark.parametrize("auxiliary", ["none", "balance", "information", "domain"])
def test_every_router_learns(routing, top, auxiliary):
    method = MoEEmbeddings(routing=routing, top=top, auxiliary=auxiliary, auxiliary_weight=1.0, blocks="middle")
    learner, _ = made(method)
    at = torch.arange(N)
    with torch.random.fork_rng(devices=[]):
        learner(data().inputs, at, at)[0].mean().backward()
    gradient = learner.backbone.network.routers[0].weight.grad
    if routing == "sentence" and auxiliary == "none":
        assert gradient is None  # the largest is taken as it is
    else:
        assert bool(gradient.any())


def test_an_even_router_is_balanced_and_a_sure_one_is_not():
    draw = torch.Generator().manual_seed(0)
    logits, chosen = torch.randn(50, 4, generator=draw), torch.randint(0, 4, (50, 2), generator=draw)
    shares = F.one_hot(chosen, 4).sum((0, 1)) / 100
    torch.testing.assert_close(load_balance(logits, chosen), 4 * (logits.softmax(1).mean(0) * shares).sum())
    sure = torch.tensor([[60.0, 0, 0, 0]] * 5)
    torch.testing.assert_close(load_balance(sure, sure.argmax(1, keepdim=True)), torch.tensor(4.0))


def test_information_is_none_where_the_router_does_not_look():
    domains = torch.tensor([0, 1, 2, 0, 1, 2])
    same = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).expand(6, 4)
    torch.testing.assert_close(shared_information(same, domains, 3), torch.tensor(0.0), atol=1e-6, rtol=0)
    sure = 60.0 * F.one_hot(domains, 4)
    torch.testing.assert_close(shared_information(sure, domains, 3), torch.tensor(math.log(3)))


def test_information_has_a_gradient_where_a_domain_has_no_text():
    logits = torch.tensor([[60.0, 0, 0], [0, 1, 2], [1, 0, 0]], requires_grad=True)
    shared_information(logits, torch.tensor([0, 2, 0]), 3).backward()
    assert bool(logits.grad.isfinite().all())
    assert bool(logits.grad.any())


def test_begins_with_a_trained_encoder(tmp_path):
    trained, columns = learned("masked-lm", steps=2), data()
    save_encoder(Store(tmp_path), trained.encoder, RECIPE, columns)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        learner, _ = made(MoEEmbeddings(start=str(tmp_path)))
    x = columns.inputs
    network = learner.backbone.network
    assert isinstance(network, ExpertTransformer)
    assert torch.equal(network.features(x, torch.ones(N, dtype=torch.int64)), trained.encoder(x))
    other = columns.replace(info=replace(columns.info, vocabulary=columns.info.vocabulary[::-1]))
    with pytest.raises(ModicumError, match=r"was trained with 40 tokens that are not those of info.vocabulary"):
        made(MoEEmbeddings(start=str(tmp_path)), other)


class Stop(Exception):
    pass


class Killer:
    def __init__(self, at):
        self.at = at

    def record(self, epoch, indices, outputs, losses):
        self.at -= 1
        if not self.at:
            raise Stop

    def end_epoch(self, epoch, model):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("method", ["moe-embeddings", "moe-embeddings(routing='random', targets='similarity')"])
def test_interrupted_and_resumed_equals_uninterrupted_with_domains(method, tmp_path):
    splits = Splits(data(), data(), data())
    ctx = Context(store=Store(tmp_path), checkpoint_seconds=0)
    with pytest.raises(Stop):
        pretrain(splits, method, RECIPE, ctx, recorder=Killer(4))
    again = pretrain(splits, method, RECIPE, ctx, recorder=Killer(-1)).learner.state_dict()
    whole = pretrain(splits, method, RECIPE, recorder=Killer(-1)).learner.state_dict()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"experts": -1}, "option experts=-1; expected an integer >= 0"),
        ({"routing": "best"}, "expected 'enforced', 'sentence', 'sentence-top', 'token', 'random'"),
        ({"auxiliary": "entropy"}, "auxiliary='entropy'; expected 'none', 'balance', 'information', 'domain'"),
        ({"auxiliary": "balance"}, "auxiliary='balance'; expected 'none', because routing='enforced' has no router"),
        ({"span": 0.0}, "span=0.0; expected a number in (0, 1]"),
        ({"scale": 0.0}, "scale=0.0; expected a number > 0"),
        ({"targets": "rows"}, "targets='rows'; expected 'diagonal', 'similarity'"),
        ({"blocks": "last"}, "blocks='last'; expected 'all', 'middle'"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ModicumError) as error:
        MoEEmbeddings(**options)
    assert text in str(error.value)


def test_data_and_options_that_do_not_fit():
    with pytest.raises(ModicumError, match="experts=2; expected 1 or the number of domains, 3"):
        learned("moe-embeddings(experts=2)")
    with pytest.raises(ModicumError, match="experts=2 with auxiliary='domain'; expected one for each of 3 domains"):
        learned("moe-embeddings(experts=2, routing='token', auxiliary='domain')")
    with pytest.raises(ModicumError, match=r"sources reach from 0 to 7; expected 0..2, the positions in info.sources="):
        made(MoEEmbeddings(), data().replace(sources=torch.tensor([7, *[0] * (N - 1)])))
