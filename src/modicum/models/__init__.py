"""Which network? Architectures by name, `build`, and the representation that any network gives before its last layer."""

from modicum.models.base import Network, features
from modicum.models.build import ARCHITECTURES, build
from modicum.models.convnet import ConvNet
from modicum.models.resnet import ResNet9, ResNet18
from modicum.models.simple import MLP, Linear
from modicum.models.text import Bag, Transformer

__all__ = [
    "ARCHITECTURES",
    "MLP",
    "Bag",
    "ConvNet",
    "Linear",
    "Network",
    "ResNet18",
    "ResNet9",
    "Transformer",
    "build",
    "features",
]
