"""The verbs, for data in any form: what `modicum.compare` and its like are."""

from modicum.verbs.comparing import compare
from modicum.verbs.forecasting import forecast
from modicum.verbs.learning import pretrain, probe, relabel
from modicum.verbs.making import distill, fit
from modicum.verbs.scoring import score
from modicum.verbs.selecting import select

__all__ = ["compare", "distill", "fit", "forecast", "pretrain", "probe", "relabel", "score", "select"]
