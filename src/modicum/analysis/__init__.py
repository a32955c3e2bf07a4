"""What does the training tell?"""

from modicum.analysis.rela_pilot import Forecast, predict_help
from modicum.analysis.rela_rho import RelabelingNoise, gradient_noise, relabeling_noise
from modicum.analysis.rela_transport import Transport, transport

__all__ = [
    "Forecast",
    "RelabelingNoise",
    "Transport",
    "gradient_noise",
    "predict_help",
    "relabeling_noise",
    "transport",
]
