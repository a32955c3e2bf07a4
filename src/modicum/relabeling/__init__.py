"""Can a prior model make the targets better?

`relabel` replaces targets by whitened features of any network; `Rela` begins a training run with them, until they have
given what they can, and goes on with any method of `modicum.pretraining`, or with labels.
"""

from modicum.relabeling.open_prior import open_prior
from modicum.relabeling.prior import Prior
from modicum.relabeling.prior_features import PriorFeatures, PriorTargets
from modicum.relabeling.rela import Rela, rela_loss
from modicum.relabeling.relabel import relabel
from modicum.relabeling.switch import SwitchRule
from modicum.relabeling.whitened import whitened_targets

__all__ = [
    "Prior",
    "PriorFeatures",
    "PriorTargets",
    "Rela",
    "SwitchRule",
    "open_prior",
    "rela_loss",
    "relabel",
    "whitened_targets",
]
