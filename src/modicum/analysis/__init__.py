"""What does the training tell?"""

from modicum.analysis.a_mtrl import Relevance, allocate_samples, source_relevance, spread_risk
from modicum.analysis.multitask import ActiveTasks, active_tasks, shared_representation
from modicum.analysis.phase_diagram import PhaseDiagram, crossing, phase_diagram
from modicum.analysis.pruning_simulation import max_margin, simulate_pruning
from modicum.analysis.rela_pilot import Forecast, predict_help
from modicum.analysis.rela_rho import RelabelingNoise, gradient_noise, relabeling_noise
from modicum.analysis.rela_transport import Transport, transport
from modicum.analysis.source_pilot import SourcePilot, pilot_sources
from modicum.selection.pruning_forecast import AlphaFit, KeepForecast, PruningForecast, fit_alpha, forecast_pruning
from modicum.selection.pruning_theory import PerceptronSolution, perceptron_solution, pruning_theory

__all__ = [
    "ActiveTasks",
    "AlphaFit",
    "Forecast",
    "KeepForecast",
    "PerceptronSolution",
    "PhaseDiagram",
    "PruningForecast",
    "RelabelingNoise",
    "Relevance",
    "SourcePilot",
    "Transport",
    "active_tasks",
    "allocate_samples",
    "crossing",
    "fit_alpha",
    "forecast_pruning",
    "gradient_noise",
    "max_margin",
    "perceptron_solution",
    "phase_diagram",
    "pilot_sources",
    "predict_help",
    "pruning_theory",
    "relabeling_noise",
    "shared_representation",
    "simulate_pruning",
    "source_relevance",
    "spread_risk",
    "transport",
]
