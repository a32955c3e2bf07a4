import pytest
import torch
from torch import nn

from modicum.errors import ModicumError
from modicum.models import ConvNet


def test_channels_grow_from_block_to_block() -> None:
    net = ConvNet((3, 32, 32), 10, width=128, growth=2, norm="none")
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == [128, 256, 512]
    assert net.head.in_features == 512 * 4 * 4
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_without_normalization_a_scaled_image_gives_scaled_features() -> None:
    x = torch.rand(2, 1, 8, 8)
    for norm, grows in (("none", True), ("instance", False)):
        net = ConvNet((1, 8, 8), 2, width=4, norm=norm)
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        ratio = (net.features(10 * x).norm() / net.features(x).norm()).item()
        assert (ratio == pytest.approx(10, rel=1e-4)) is grows


@pytest.mark.parametrize(
    ("options", "text"),
    [({"norm": "batch"}, "norm='batch'; expected 'instance' or 'none'"), ({"growth": 0}, "growth=0")],
)
def test_unknown_options(options: dict, text: str) -> None:
    with pytest.raises(ModicumError, match=text):
        ConvNet((1, 8, 8), 2, **options)
