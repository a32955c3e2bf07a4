"""Which network? Architectures by name, `build`, and the representation that any network gives before its last layer."""

from modicum.models.base import Network, features
from modicum.models.build import ARCHITECTURES, build
from modicum.models.cct import cct, cvt, vit_lite
from modicum.models.classic import VGG11, AlexNet, LeNet
from modicum.models.compact import CompactTransformer, SequencePool
from modicum.models.convnet import ConvNet
from modicum.models.experts import ExpertTransformer
from modicum.models.resnet import ResNet9, ResNet18
from modicum.models.scatnet import ScatNet
from modicum.models.scattering import Scattering
from modicum.models.simple import MLP, Linear
from modicum.models.text import Bag, Transformer

__all__ = [
    "ARCHITECTURES",
    "VGG11",
    "AlexNet",
    "Bag",
    "CompactTransformer",
    "ConvNet",
    "ExpertTransformer",
    "LeNet",
    "Linear",
    "MLP",
    "Network",
    "ResNet18",
    "ResNet9",
    "ScatNet",
    "Scattering",
    "SequencePool",
    "Transformer",
    "build",
    "cct",
    "cvt",
    "features",
    "vit_lite",
]
