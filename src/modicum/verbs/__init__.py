"""The verbs, for data in any form: what `modicum.compare` and its like are."""

from modicum.verbs.comparing import compare
from modicum.verbs.filtering import filter
from modicum.verbs.forecasting import forecast
from modicum.verbs.learning import pretrain, probe, relabel
from modicum.verbs.making import distill, fit
from modicum.verbs.mixing import Mixed, mix
from modicum.verbs.scoring import score
from modicum.verbs.selecting import select

__all__ = [
    "Mixed",
    "compare",
    "distill",
    "filter",
    "fit",
    "forecast",
    "mix",
    "pretrain",
    "probe",
    "relabel",
    "score",
    "select",
]
