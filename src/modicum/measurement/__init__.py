"""What is expensive and made once: measurements of a data set, cached by content and charged in full to every reader."""

from modicum.measurement.experts import Experts, ExpertTable
from modicum.measurement.features import Features, FeatureTable
from modicum.measurement.gradients import Gradients, GradientTable
from modicum.measurement.gsam import GSAM, gsam_direction, gsam_perturbation
from modicum.measurement.learning_curve import CurveTable, LearningCurve
from modicum.measurement.statistics import Statistics, StatisticsTable
from modicum.measurement.traces import Traces, TraceTable
from modicum.measurement.utilities import Utilities, Utility

__all__ = [
    "CurveTable",
    "ExpertTable",
    "Experts",
    "FeatureTable",
    "Features",
    "GSAM",
    "GradientTable",
    "Gradients",
    "LearningCurve",
    "Statistics",
    "StatisticsTable",
    "TraceTable",
    "Traces",
    "Utilities",
    "Utility",
    "gsam_direction",
    "gsam_perturbation",
]
