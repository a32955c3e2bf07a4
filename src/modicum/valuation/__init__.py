"""What is each sample worth?

A *valuation* reads a measurement and gives every training sample one number: a value (higher = more worth keeping) or a
difficulty (higher = harder).
"""

from modicum.valuation.aum import Aum, aum
from modicum.valuation.el2n import El2n, el2n
from modicum.valuation.forgetting import Forgetting, forgetting
from modicum.valuation.knn_shapley import KnnShapley, knn_shapley
from modicum.valuation.margin import Margin, entropy, least_confidence, margin
from modicum.valuation.ssp import Ssp, ssp

__all__ = [
    "Aum",
    "El2n",
    "Forgetting",
    "KnnShapley",
    "Margin",
    "Ssp",
    "aum",
    "el2n",
    "entropy",
    "forgetting",
    "knn_shapley",
    "least_confidence",
    "margin",
    "ssp",
]
