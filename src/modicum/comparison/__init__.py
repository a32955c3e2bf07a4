"""Which way of spending less works here? The protocol: controls, budgets, seeds, frontier, recommendation."""

from modicum.comparison.compare import DEFAULT_METHODS, Estimate, run
from modicum.comparison.controls import Full, Short
from modicum.comparison.frontier import Frontier, Point, Recommendation, Row
from modicum.comparison.recommend import Gap, gap, recommend

__all__ = [
    "DEFAULT_METHODS",
    "Estimate",
    "Frontier",
    "Full",
    "Gap",
    "Point",
    "Recommendation",
    "Row",
    "Short",
    "gap",
    "recommend",
    "run",
]
