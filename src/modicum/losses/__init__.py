"""What is minimized? PyTorch modules that work in any loop."""

from modicum.losses.barlow_twins import BarlowTwins
from modicum.losses.dino import DINO
from modicum.losses.info_nce import InfoNCE
from modicum.losses.instance_discrimination import InstanceDiscrimination, NoiseContrastive
from modicum.losses.isogclr import ISogCLR
from modicum.losses.multiple_negatives import MultipleNegatives
from modicum.losses.negative_cosine import NegativeCosine
from modicum.losses.nt_xent import NTXent
from modicum.losses.sogclr import SogCLR
from modicum.losses.sqrt_kl import SqrtKL
from modicum.losses.vicreg import VICReg

__all__ = [
    "BarlowTwins",
    "DINO",
    "ISogCLR",
    "InfoNCE",
    "InstanceDiscrimination",
    "MultipleNegatives",
    "NTXent",
    "NegativeCosine",
    "NoiseContrastive",
    "SogCLR",
    "SqrtKL",
    "VICReg",
]
