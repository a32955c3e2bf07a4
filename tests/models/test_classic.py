import pytest
import torch

from modicum.errors import ModicumError
from modicum.models import VGG11, AlexNet, LeNet


@pytest.mark.parametrize(
    "kind, shape, parameters",
    [
        (LeNet, (1, 28, 28), 61_706),  # the published count
        (LeNet, (3, 32, 32), 62_006),
        (AlexNet, (3, 32, 32), 1_872_202),
        (VGG11, (3, 32, 32), 9_231_114),
    ],
)
def test_parameter_counts(kind, shape, parameters):
    assert sum(p.numel() for p in kind(shape, 10).parameters()) == parameters


@pytest.mark.parametrize("kind", [LeNet, AlexNet, VGG11])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 20), (1, 28, 28), (3, 64, 64)])
def test_any_size_gives_features_and_logits(kind, shape):
    options = {} if kind is LeNet else {"width": 8}
    network, x = kind(shape, 5, **options), torch.rand(2, *shape)
    torch.testing.assert_close(network(x), network.head(network.features(x)))
    assert network(x).shape == (2, 5)


def test_gray_images_of_28_px_become_32():
    assert AlexNet((1, 28, 28), 10).head.in_features == AlexNet((1, 32, 32), 10).head.in_features == 192 * 16
    assert VGG11((1, 28, 28), 10).head.in_features == 512


@pytest.mark.parametrize("kind, least", [(LeNet, 4), (AlexNet, 8), (VGG11, 4)])
def test_images_that_are_too_small(kind, least):
    with pytest.raises(ModicumError, match=f"needs images of at least {least} px, got 3 x 3"):
        kind((1, 3, 3), 2)


def test_an_unknown_norm():
    with pytest.raises(ModicumError, match="norm='layer'"):
        VGG11((3, 32, 32), 2, norm="layer")
