"""Compact transformers: published sizes, tokens, pooling, positions, what is drawn."""

import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import ModicumError, TrainingError
from modicum.flops import count_flops
from modicum.models import CompactTransformer, SequencePool, build, cct, cvt, vit_lite
from modicum.models.compact import sines
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

RGB = (3, 32, 32)


def count(model):
    return sum(p.numel() for p in model.parameters())


def moved(model):
    """All weights away from where they begin, so that no part of the network is silent."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return model


@pytest.mark.parametrize(
    "make, parameters",
    [
        (lambda: cct(RGB, 10, layers=2, convolutions=2), 283_723),
        (lambda: cct(RGB, 10, layers=4, convolutions=2), 482_123),
        (lambda: cct(RGB, 10, layers=6, convolutions=2), 3_326_923),
        (lambda: cct(RGB, 10, layers=7, convolutions=2), 3_853_259),
        (lambda: cct(RGB, 10, layers=6), 3_233_803),
        (lambda: cct(RGB, 10), 3_760_139),
        (lambda: cvt(RGB, 10, layers=6), 3_190_283),
        (lambda: cvt(RGB, 10), 3_716_619),
        (lambda: vit_lite(RGB, 10, layers=6), 3_190_538),
        (lambda: vit_lite(RGB, 10), 3_716_874),
        (lambda: cct((3, 224, 224), 1000, layers=14, kernel=7, convolutions=2), 22_367_273),
    ],
)
def test_parameters_as_published(make, parameters):
    with torch.device("meta"):
        assert count(make()) == parameters


def test_published_count_without_positions():
    assert count(cct(RGB, 10, layers=6)) - 256 * 256 == 3_168_267


@pytest.mark.parametrize(
    "model, tokens",
    [
        (cct(RGB, 2, layers=2), 256),
        (cct(RGB, 2, layers=2, convolutions=2), 64),
        (cct(RGB, 2, layers=2, kernel=7), 64),
        (cct((1, 28, 28), 2, layers=2, convolutions=2), 49),
        (cct((3, 16, 24), 2, layers=2, convolutions=2), 24),
        (cvt(RGB, 2, layers=2, patch=4), 64),
        (vit_lite(RGB, 2, layers=2, patch=8), 16),
    ],
)
def test_tokens(model, tokens):
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    shape = {256: RGB, 64: RGB, 49: (1, 28, 28), 24: (3, 16, 24), 16: RGB}[tokens]
    assert model(torch.rand(2, *shape)).shape == (2, 2)
    assert model.tokens == tokens
    assert seen == [tokens + (model.token is not None)]


def test_pooling_with_zero_weights_is_the_mean():
    pool, h = SequencePool(8), torch.randn(3, 5, 8)
    nn.init.zeros_(pool.weigh.weight)
    torch.testing.assert_close(pool(h), h.mean(1))


def test_pooling_equals_its_formula():
    pool, h = SequencePool(8), torch.randn(3, 5, 8)
    weights = torch.exp(h @ pool.weigh.weight[0] + pool.weigh.bias)
    torch.testing.assert_close(pool(h), (weights[..., None] * h).sum(1) / weights.sum(1, keepdim=True))


def patches_moved(model):
    """The difference that another order of the patches makes."""
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    tiles = x.reshape(2, 3, 4, 4, 4, 4)
    turned = tiles.flip(2).roll(1, 4).reshape(2, 3, 16, 16)
    with torch.no_grad():
        return float((model(x) - model(turned)).abs().max())


def test_without_positions_the_order_of_patches_changes_nothing():
    assert patches_moved(moved(cvt((3, 16, 16), 5, layers=2, positions="none"))) < 1e-4


@pytest.mark.parametrize("positions", ["learnable", "sine"])
def test_with_positions_it_does(positions):
    assert patches_moved(moved(cvt((3, 16, 16), 5, layers=2, positions=positions))) > 1e-2


def test_sines():
    table = sines(50, 6)
    assert torch.equal(table[0], torch.tensor([0.0, 1, 0, 1, 0, 1]))
    torch.testing.assert_close(table[7, 2:4], torch.tensor([7 / 10_000 ** (2 / 6)]).repeat(2).sin() * torch.tensor([1.0, 0])
                               + torch.tensor([7 / 10_000 ** (2 / 6)]).repeat(2).cos() * torch.tensor([0, 1.0]))  # fmt: skip
    torch.testing.assert_close(table[:, ::2] ** 2 + table[:, 1::2] ** 2, torch.ones(50, 3))
    model = cct(RGB, 10, layers=2, positions="sine")
    assert count(model) == count(cct(RGB, 10, layers=2, positions="none"))


def test_initial_weights():
    model = cct(RGB, 10, layers=7).requires_grad_(False)
    assert 0.19 < float(model.positions.std()) < 0.21
    assert 0.019 < float(model.blocks[3].qkv.weight.std()) < 0.021
    assert float(model.blocks[3].out.bias.abs().max()) == 0
    fan_in = 3 * 9
    assert abs(float(model.tokenizer[0].weight.std()) - (2 / fan_in) ** 0.5) < 0.02


def test_a_block_normalizes_the_stream_itself():
    block, h = moved(cct(RGB, 2, layers=2).blocks[0]), torch.randn(2, 6, 128)
    q, k, v = block.qkv(block.before(h)).reshape(2, 6, 3, 2, 64).permute(2, 0, 3, 1, 4)
    fused = nn.functional.scaled_dot_product_attention(q, k, v)
    stream = block.between(h + block.out(fused.transpose(1, 2).reshape(2, 6, 128)))
    torch.testing.assert_close(block(h), stream + block.mlp(stream), rtol=1e-4, atol=1e-5)


def test_flops_are_counted_exactly():
    n, tokens, width, layers = 3, 64, 128, 2
    with count_flops() as counter:
        cct(RGB, 10, layers=layers, convolutions=2)(torch.rand(n, *RGB))
    convolutions = 2 * 32 * 32 * 27 * 64 + 2 * 16 * 16 * 64 * 9 * width
    block = 2 * tokens * width * (4 * width + 2 * width) + 4 * tokens * tokens * width
    assert counter.flops == n * (convolutions + layers * block + 4 * tokens * width + 2 * width * 10)
    assert counter.uncounted == ()


def test_nothing_is_drawn_unless_asked_for():
    x, still = torch.rand(2, *RGB), cct(RGB, 10, layers=2).train()
    assert torch.equal(still(x), still(x))
    model = cct(RGB, 10, layers=2, stochastic_depth=0.5, attention_dropout=0.2, dropout=0.1)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_stochastic_depth_drops_samples_and_keeps_the_mean():
    block = cct(RGB, 2, layers=4, stochastic_depth=0.6).train().blocks
    assert [getattr(b.skip, "p", 0.0) for b in block] == pytest.approx([0, 0.2, 0.4, 0.6])
    out = block[3].skip(torch.ones(4000, 2, 3))
    values = out.flatten(1)
    assert bool((values == values[:, :1]).all())
    assert sorted(set(values[:, 0].tolist())) == pytest.approx([0, 2.5])
    assert abs(float(out.mean()) - 1) < 0.1


def test_it_learns():
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(64) % 2
    x = torch.rand(64, 1, 8, 8, generator=draw) + y[:, None, None, None] * torch.eye(8)
    data = Dataset(x, y, info=Info(modality="image", classes=("a", "b")))
    recipe = Recipe("cct(layers=2, width=16, kernel=3)", 8, batch_size=16, optimizer="adamw", lr=3e-3)
    assert fit(data, recipe, Context()).evaluate(data).score > 0.9


def test_it_is_built_by_name():
    data = Dataset(torch.rand(2, 3, 16, 16), torch.arange(2), info=Info(modality="image", classes=("a", "b")))
    for name in ("cct(layers=2, convolutions=2)", "cvt(layers=2, patch=8)", "vit-lite(layers=2)"):
        assert isinstance(build(name, data), CompactTransformer)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cvt(RGB, 2, patch=5), r"cvt\(patch=5\) cuts the image into squares of 5 px, which do not fit into 32 x 32"),
        (lambda: vit_lite((3, 30, 32), 2), r"vit-lite\(patch=4\) cuts .* 30 x 32 px; choose another patch, or use cct"),
        (lambda: cct(RGB, 2, layers=3), "layers=3 is no published size .*; give heads, ratio and width too"),
        (lambda: cct(RGB, 2, layers=2, heads=3), "heads=3 must divide width=128"),
        (lambda: cct((3, 2, 2), 2, convolutions=2), "leaves 1 token of an image; expected at least 2"),
        (lambda: cct(RGB, 2, positions="rotary"), "positions='rotary'; expected 'learnable', 'sine', 'none'"),
        (lambda: cct(RGB, 2, pool="mean"), "pool='mean'; expected 'sequence', 'class'"),
        (lambda: cct(RGB, 2, dropout=1.0), r"dropout=1.0; expected a share in \[0, 1\)"),
        (lambda: cct(RGB, 2, convolutions=0), "convolutions=0; expected an integer >= 1"),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ModicumError, match=message):
        make()


def test_another_size_of_images_is_refused():
    with pytest.raises(TrainingError, match=r"give 16 tokens, but the network was built for 64; resize the images"):
        cvt(RGB, 2, layers=2)(torch.rand(1, 3, 16, 16))
