"""What is expensive and made once: measurements of a data set, cached by content and charged in full to every reader."""

from modicum.measurement.features import Features, FeatureTable
from modicum.measurement.gradients import Gradients, GradientTable
from modicum.measurement.traces import Traces, TraceTable
from modicum.measurement.utilities import Utilities, Utility

__all__ = ["FeatureTable", "Features", "GradientTable", "Gradients", "TraceTable", "Traces", "Utilities", "Utility"]
