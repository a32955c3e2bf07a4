import pytest
import torch
from torch import nn

from modicum.models import Bag, ConvNet, Network, ResNet9, ResNet18, Transformer


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "model, parameters",
    [
        (ConvNet((3, 32, 32), 10), 320_010),
        (ConvNet((1, 28, 28), 10), 317_706),
        (ConvNet((3, 32, 32), 100), 504_420),
        (ConvNet((1, 28, 28), 10, width=32), 24_138),
        (ResNet18((3, 32, 32), 10), 11_173_962),
        (ResNet18((3, 32, 32), 10, norm="instance"), 11_173_962),
        (ResNet9((3, 32, 32), 10), 6_573_130),
    ],
)
def test_parameter_counts(model: Network, parameters: int) -> None:
    assert count(model) == parameters


@pytest.mark.parametrize("side, depth", [(8, 2), (28, 3), (32, 3), (64, 4), (128, 5), (256, 6)])
def test_depth_by_size(side: int, depth: int) -> None:
    model = ConvNet((1, side, side), 2, width=2)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == depth
    assert model.head.in_features == 2 * (2 if side == 8 else 4) ** 2
    assert model(torch.rand(1, 1, side, side)).shape == (1, 2)


def test_convnet_equals_the_protocol_layer_by_layer() -> None:
    model, x = ConvNet((1, 28, 28), 10, width=4), torch.rand(2, 1, 28, 28)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    h = x
    for i, layer in enumerate(convolutions):
        h = nn.functional.conv2d(h, layer.weight, layer.bias, padding=1 if i else 3)
        h = (h - h.mean((2, 3), keepdim=True)) / (h.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        h = nn.functional.avg_pool2d(h.relu(), 2)
    torch.testing.assert_close(model(x), model.head(h.flatten(1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [ConvNet, ResNet9, ResNet18])
def test_instance_norm_treats_images_alone(kind: type[Network]) -> None:
    options = {"width": 4} if kind is ConvNet else {"width": 4, "norm": "instance"}
    model, x = kind((3, 16, 16), 2, **options), torch.rand(4, 3, 16, 16)  # type: ignore[call-arg, arg-type]
    torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Bag, Transformer])
def test_padding_changes_nothing(kind: type[Network]) -> None:
    model = kind(10, 6, 2, width=8)  # type: ignore[call-arg, arg-type]
    short, long = torch.tensor([[3, 4, 5]]), torch.tensor([[3, 4, 5, 0, 0, 0]])
    torch.testing.assert_close(model(short), model(long), rtol=1e-5, atol=1e-6)
    empty = model(torch.zeros(2, 6, dtype=torch.long))
    assert empty.isfinite().all()
    empty.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_bag_ignores_the_order_and_a_transformer_does_not() -> None:
    tokens, turned = torch.tensor([[3, 4, 5]]), torch.tensor([[5, 4, 3]])
    bag, transformer = Bag(10, 3, 2), Transformer(10, 3, 2)
    torch.testing.assert_close(bag(tokens), bag(turned))
    assert not torch.allclose(transformer(tokens), transformer(turned), atol=1e-6)


def test_attention_equals_the_fused_kernel() -> None:
    block = Transformer(10, 4, 2, width=8, heads=2).blocks[0]
    h, present = torch.randn(3, 4, 8), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    q, k, v = block.qkv(block.before(h)).reshape(3, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)  # type: ignore[operator, union-attr]
    fused = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None])
    middle = h + block.out(fused.transpose(1, 2).reshape(3, 4, 8))  # type: ignore[operator]
    torch.testing.assert_close(block(h, present), middle + block.mlp(block.between(middle)))  # type: ignore[operator]
