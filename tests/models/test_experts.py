import pytest
import torch

from modicum.errors import ModicumError
from modicum.flops import count_flops
from modicum.models import ExpertTransformer, Transformer

DOMAINS = torch.tensor([2, 0, 1, 2, 0, 0, 2, 1])


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Transformer(30, 9, 2, width=16, heads=2, layers=3)


@pytest.fixture
def x():
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(1, 30, (8, 9), generator=draw)
    x[torch.arange(9) >= torch.randint(2, 10, (8, 1), generator=draw)] = 0
    return x


def unlike(extended):
    """The same network with experts and domains that differ."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in [*extended.experts.parameters(), *extended.domains]:
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    return extended


@pytest.mark.parametrize("blocks", ["all", "middle"])
@pytest.mark.parametrize("domain", [0, 1, 2])
def test_an_extended_network_computes_what_the_old_one_did_to_the_bit(network, x, domain, blocks):
    extended = ExpertTransformer(network, 3, 3, blocks=blocks)
    assert torch.equal(extended.features(x, torch.full((8,), domain)), network.features(x))
    assert torch.equal(ExpertTransformer(network, 1, 3).features(x, torch.full((8,), domain)), network.features(x))


@pytest.mark.parametrize("routing", ["enforced", "sentence", "token"])
@pytest.mark.parametrize("domains", [DOMAINS, None], ids=["known", "unknown"])
def test_and_for_every_assignment(network, x, domains, routing):
    extended = ExpertTransformer(network, 3, 3, routing=routing)
    torch.testing.assert_close(extended.features(x, domains), network.features(x), atol=1e-6, rtol=1e-5)
    assert all(not isinstance(block.mlp, torch.nn.Identity) for block in network.blocks)


def test_experts_are_copies_and_not_the_same_weights(network, x):
    extended = ExpertTransformer(network, 3, 3)
    weights = [expert[0].weight.data_ptr() for layer in extended.experts for expert in layer]
    assert len(set(weights)) == 9
    before = network.features(x)
    unlike(extended)
    assert torch.equal(network.features(x), before)
    assert not torch.allclose(extended.features(x, DOMAINS), before, atol=1e-2)


def test_a_text_is_read_by_the_expert_of_its_domain_alone(network, x):
    extended = unlike(ExpertTransformer(network, 3, 3))
    together = extended.features(x, DOMAINS)
    for domain in range(3):
        alone = Transformer(30, 9, 2, width=16, heads=2, layers=3)
        alone.load_state_dict(network.state_dict())
        for block, experts in zip(alone.blocks, extended.experts):
            block.mlp = experts[domain]
        h = alone.embed(x)
        h[:, 0] += extended.domains[domain]
        states = alone.encode(h, x != 0)
        mask = (x != 0)[..., None]
        expected = (states * mask).sum(1) / mask.sum(1)
        here = domain == DOMAINS
        torch.testing.assert_close(together[here], expected[here])


@pytest.mark.parametrize("routing, top", [("enforced", 1), ("sentence", 1), ("sentence-top", 2), ("token", 2)])
def test_another_order_of_the_texts_permutes_the_features(network, x, routing, top):
    extended = unlike(ExpertTransformer(network, 3, 3, routing=routing, top=top))
    order = torch.tensor([5, 2, 7, 0, 1, 3, 6, 4])
    torch.testing.assert_close(extended.features(x[order], DOMAINS[order]), extended.features(x, DOMAINS)[order])


def test_only_the_experts_and_domains_of_a_batch_have_a_gradient(network, x):
    extended = ExpertTransformer(network, 3, 3)
    extended.features(x, torch.tensor([0, 2] * 4)).square().sum().backward()
    for layer in extended.experts:
        assert [all(p.grad is not None for p in expert.parameters()) for expert in layer] == [True, False, True]
    optimizer = torch.optim.AdamW(extended.parameters(), 0.1, weight_decay=0.1)
    before = {name: value.clone() for name, value in extended.named_parameters()}
    optimizer.step()
    moved = {name for name, value in extended.named_parameters() if not torch.equal(value, before[name])}
    assert {name for name in moved if name.startswith("domains")} == {"domains.0", "domains.2"}
    assert {name.split(".")[2] for name in moved if name.startswith("experts")} == {"0", "2"}


def flops(run):
    with count_flops() as counter:
        run()
    return counter.flops


@pytest.mark.parametrize("routing", ["enforced", "sentence", "token"])
def test_a_text_costs_what_it_did(network, x, routing):
    extended = ExpertTransformer(network, 3, 3, routing=routing)
    router = 0 if routing == "enforced" else 3 * 2 * x.numel() * 16 * 3
    assert flops(lambda: extended.features(x, DOMAINS)) == flops(lambda: network.features(x)) + router
    assert flops(lambda: extended.features(x, DOMAINS.sort().values)) == flops(lambda: network.features(x)) + router


def test_an_unknown_domain_is_read_with_the_mean_of_all(network, x):
    extended = unlike(ExpertTransformer(network, 2, 2))
    alone = ExpertTransformer(network, 1, 1)
    with torch.no_grad():
        for one, layer in zip(alone.experts, extended.experts):
            for p, a, b in zip(one[0].parameters(), layer[0].parameters(), layer[1].parameters()):
                p.copy_((a + b) / 2)
        alone.domains[0].copy_((extended.domains[0] + extended.domains[1]) / 2)
    torch.testing.assert_close(extended.features(x), alone.features(x))
    assert flops(lambda: extended.features(x)) == flops(lambda: network.features(x))


@pytest.mark.parametrize("routing, units", [("sentence", 8), ("sentence-top", 8), ("token", None)])
def test_routers_tell_what_they_did(network, x, routing, units):
    top = 1 if routing == "sentence" else 2
    extended = unlike(ExpertTransformer(network, 3, 3, routing=routing, top=top))
    _, routed = extended.route(x, DOMAINS)
    assert len(routed) == 3
    for each in routed:
        assert each.logits.shape == (units or int((x != 0).sum()), 3)
        assert each.chosen.shape == (len(each.logits), top)
        assert each.means.shape == (8, 3)
        assert torch.equal(each.chosen[:, 0], each.logits.argmax(1))


def test_the_weights_of_sentence_top_are_not_normalized_again_and_those_of_tokens_are(network, x):
    extended = ExpertTransformer(network, 3, 3, routing="sentence-top", top=3, blocks="middle")
    torch.testing.assert_close(extended.features(x), network.features(x), atol=1e-6, rtol=1e-5)  # they sum to 1
    fewer = ExpertTransformer(network, 3, 3, routing="sentence-top", top=1, blocks="middle")
    assert not torch.allclose(fewer.features(x), network.features(x), atol=1e-4)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"experts": 0}, "model option experts=0; expected an integer >= 1"),
        (
            {"routing": "cosine"},
            "model option routing='cosine'; expected one of enforced, sentence, sentence-top, token",
        ),
        ({"blocks": "last"}, "model option blocks='last'; expected one of all, middle"),
        ({"top": 3, "routing": "token"}, "model option top=3; expected at most experts=2"),
        ({"top": 2}, "model option top=2; expected 1 with routing='enforced'"),
        ({"domains": 3}, "model option experts=2; expected 1 or the number of domains, 3"),
    ],
)
def test_options_that_make_no_sense(network, options, text):
    with pytest.raises(ModicumError) as error:
        ExpertTransformer(network, **{"experts": 2, "domains": 2, **options})
    assert str(error.value) == text


@pytest.mark.parametrize(
    "domains, text",
    [
        (torch.tensor([0, 1, 2, 0, 0, 0, 0, 0]), "domains reach from 0 to 2; expected 0..1, or None"),
        (torch.tensor([0, -1, 1, 0, 0, 0, 0, 0]), "domains reach from -1 to 1"),
        (
            torch.zeros(7, dtype=torch.int64),
            r"domains have shape \(7,\) and type torch.int64; expected \(8,\) integers",
        ),
        (torch.zeros(8), "type torch.float32; expected"),
    ],
)
def test_domains_that_do_not_exist(network, x, domains, text):
    with pytest.raises(ModicumError, match=text):
        ExpertTransformer(network, 2, 2).features(x, domains)
