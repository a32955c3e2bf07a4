"""Which samples can go?

Controls (`Random`, `Stratified`), coresets that are chosen jointly (`Herding`, `KCenterGreedy`), and selection while
training (`InfoBatch`). Scores of a valuation become a selection by `Scores.kept`.
"""

from modicum.selection.herding import Herding, herding
from modicum.selection.infobatch import InfoBatch, InfoBatchSampler
from modicum.selection.k_center_greedy import KCenterGreedy, k_center_greedy
from modicum.selection.random import Random, random_subset
from modicum.selection.stratified import Stratified, stratified
from modicum.selection.support_vectors import SupportVectors, support_vectors

__all__ = [
    "Herding",
    "InfoBatch",
    "InfoBatchSampler",
    "KCenterGreedy",
    "Random",
    "Stratified",
    "SupportVectors",
    "herding",
    "k_center_greedy",
    "random_subset",
    "stratified",
    "support_vectors",
]
