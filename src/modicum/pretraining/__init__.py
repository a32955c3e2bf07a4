"""What can be learned without labels?

A *pretraining* method makes an encoder from inputs alone; a probe on its representation, with few labels or many, tells
what it learned.
"""

from modicum.pretraining.bank import corrected_bank_update
from modicum.pretraining.barlow_twins import BarlowTwins
from modicum.pretraining.byol import BYOL
from modicum.pretraining.curve import Curve, CurvePoint
from modicum.pretraining.dino import DINO
from modicum.pretraining.electra import ELECTRA
from modicum.pretraining.isogclr import ISogCLR
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.pretraining.masked_lm import MaskedLM
from modicum.pretraining.moco_v2 import MoCoV2
from modicum.pretraining.moe_embeddings import MoEEmbeddings
from modicum.pretraining.npid import NPID
from modicum.pretraining.pretrain import Pretrained, default_pretraining_recipe, pretrain, recipe_for
from modicum.pretraining.probes import FewShot, few_shot_probe, knn_predict, knn_probe, linear_probe, naive_bayes_probe
from modicum.pretraining.probing import ProbeRow, ProbeTable, probe
from modicum.pretraining.scatsimclr import ScatSimCLR, jigsaw, jigsaw_permutations
from modicum.pretraining.simclr import SimCLR
from modicum.pretraining.simsiam import SimSiam
from modicum.pretraining.sogclr import SogCLR
from modicum.pretraining.sqrtkl import SqrtKL
from modicum.pretraining.vicreg import VICReg

__all__ = [
    "BYOL",
    "Backbone",
    "BarlowTwins",
    "Curve",
    "CurvePoint",
    "DINO",
    "ELECTRA",
    "FewShot",
    "ISogCLR",
    "Learner",
    "MaskedLM",
    "MoCoV2",
    "MoEEmbeddings",
    "NPID",
    "Plan",
    "Pretrained",
    "ProbeRow",
    "ProbeTable",
    "ScatSimCLR",
    "SimCLR",
    "SimSiam",
    "SogCLR",
    "SqrtKL",
    "VICReg",
    "corrected_bank_update",
    "default_pretraining_recipe",
    "few_shot_probe",
    "jigsaw",
    "jigsaw_permutations",
    "knn_predict",
    "knn_probe",
    "linear_probe",
    "naive_bayes_probe",
    "pretrain",
    "probe",
    "recipe_for",
]
