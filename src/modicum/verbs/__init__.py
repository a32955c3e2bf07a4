"""The verbs, for data in any form: what `modicum.compare` and its like are."""

from modicum.verbs.comparing import compare
from modicum.verbs.learning import pretrain, probe, relabel
from modicum.verbs.making import distill, fit, select
from modicum.verbs.scoring import score

__all__ = ["compare", "distill", "fit", "pretrain", "probe", "relabel", "score", "select"]
