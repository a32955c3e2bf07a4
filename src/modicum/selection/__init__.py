"""Which samples can go?

Controls (`Random`, `Stratified`), coresets that are chosen jointly (`Herding`, `KCenterGreedy`), and selection while
training (`InfoBatch`). Scores of a valuation become a selection by `Scores.kept`.
"""

from modicum.selection.adaptive_selection import AdaptiveSampler, AdaptiveSelection
from modicum.selection.auto import Auto
from modicum.selection.cal import Cal, cal
from modicum.selection.ccs import Ccs, ccs, cutoff_of
from modicum.selection.craig import Craig, craig
from modicum.selection.d2_pruning import D2Pruning, d2_pruning
from modicum.selection.deepfool import DeepFool, deepfool
from modicum.selection.dynamic_reweighting import DynamicLoss, DynamicReweighting, DynamicSampler, dynamic_weights
from modicum.selection.facility_location import FacilityLocation, facility_location
from modicum.selection.glister import Glister, glister
from modicum.selection.gradmatch import Gradmatch, gradmatch
from modicum.selection.graph_cut import GraphCut, graph_cut
from modicum.selection.hard_samples import HardBatchSampler, HardSamples
from modicum.selection.herding import Herding, herding
from modicum.selection.infobatch import InfoBatch, InfoBatchSampler
from modicum.selection.k_center_greedy import KCenterGreedy, k_center_greedy
from modicum.selection.log_determinant import LogDeterminant, log_determinant
from modicum.selection.moderate import Moderate, moderate, prototype_distances
from modicum.selection.neighbors import neighbor_graph
from modicum.selection.random import Random, random_subset
from modicum.selection.ranked import Ranked
from modicum.selection.s2l import S2L, s2l
from modicum.selection.stratified import Stratified, stratified
from modicum.selection.support_vectors import SupportVectors, support_vectors

__all__ = [
    "S2L",
    "AdaptiveSampler",
    "AdaptiveSelection",
    "Auto",
    "Cal",
    "Ccs",
    "Craig",
    "D2Pruning",
    "DeepFool",
    "DynamicLoss",
    "DynamicReweighting",
    "DynamicSampler",
    "FacilityLocation",
    "Glister",
    "Gradmatch",
    "GraphCut",
    "HardBatchSampler",
    "HardSamples",
    "Herding",
    "InfoBatch",
    "InfoBatchSampler",
    "KCenterGreedy",
    "LogDeterminant",
    "Moderate",
    "Random",
    "Ranked",
    "Stratified",
    "SupportVectors",
    "cal",
    "ccs",
    "craig",
    "cutoff_of",
    "d2_pruning",
    "deepfool",
    "dynamic_weights",
    "facility_location",
    "glister",
    "gradmatch",
    "graph_cut",
    "herding",
    "k_center_greedy",
    "log_determinant",
    "moderate",
    "neighbor_graph",
    "prototype_distances",
    "random_subset",
    "s2l",
    "stratified",
    "support_vectors",
]
