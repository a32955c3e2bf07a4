"""What is expensive and made once: measurements of a data set, cached by content and charged in full to every reader."""

from modicum.measurement.experts import Experts, ExpertTable
from modicum.measurement.features import Features, FeatureTable
from modicum.measurement.gradients import Gradients, GradientTable
from modicum.measurement.gsam import GSAM, gsam_direction, gsam_perturbation
from modicum.measurement.traces import Traces, TraceTable
from modicum.measurement.utilities import Utilities, Utility

__all__ = [
    "ExpertTable",
    "Experts",
    "FeatureTable",
    "Features",
    "GSAM",
    "GradientTable",
    "Gradients",
    "TraceTable",
    "Traces",
    "Utilities",
    "Utility",
    "gsam_direction",
    "gsam_perturbation",
]
