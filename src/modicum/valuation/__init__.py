"""What is each sample worth?

A *valuation* reads a measurement and gives every training sample one number: a value (higher = more worth keeping) or a
difficulty (higher = harder).
"""

from modicum.valuation.aum import Aum, aum
from modicum.valuation.beta_shapley import BetaShapley, beta_shapley
from modicum.valuation.cs_shapley import CsShapley, class_wise_utility, cs_shapley
from modicum.valuation.data_banzhaf import DataBanzhaf, data_banzhaf
from modicum.valuation.data_oob import DataOob, data_oob, data_oob_of
from modicum.valuation.data_shapley import DataShapley, tmc_shapley
from modicum.valuation.datamodels import Datamodel, Datamodels, datamodels
from modicum.valuation.dataset_cartography import DatasetCartography, cartography
from modicum.valuation.dyn_unc import DynUnc, dyn_unc
from modicum.valuation.el2n import El2n, el2n
from modicum.valuation.entropy import Entropy, entropy
from modicum.valuation.forgetting import Forgetting, forgetting
from modicum.valuation.g_shapley import GShapley, g_shapley
from modicum.valuation.game import Estimate, Game
from modicum.valuation.grand import Grand, grand
from modicum.valuation.influence import Influence
from modicum.valuation.influence_functions import (
    influence_of_groups,
    influence_on_inputs,
    influence_on_loss,
    influence_on_parameters,
    self_influence,
)
from modicum.valuation.knn_banzhaf import KnnBanzhaf, knn_banzhaf
from modicum.valuation.knn_loo import knn_loo
from modicum.valuation.knn_shapley import KnnShapley, knn_shapley
from modicum.valuation.knn_shapley_regression import KnnShapleyRegression, knn_shapley_regression
from modicum.valuation.lava import Lava, class_wise_transport, lava
from modicum.valuation.lds import linear_datamodeling_score
from modicum.valuation.least_confidence import LeastConfidence, least_confidence
from modicum.valuation.loo import Loo
from modicum.valuation.margin import Margin, margin
from modicum.valuation.memorization import Memorization, influence_of_subsets, memorization
from modicum.valuation.precision import Cut, clopper_pearson, count_for_precision, precision_at
from modicum.valuation.quality import Judging, Quality, best_judging, platt, quality_scores
from modicum.valuation.ridge_loo import RidgeLoo, ridge_group_loo, ridge_loo
from modicum.valuation.semivalues import (
    position_tables,
    semivalue_from_subsets,
    semivalue_from_table,
    semivalue_weights,
    semivalues_from_permutations,
    semivalues_from_positions,
    shapley_from_table,
)
from modicum.valuation.ssp import Ssp, ssp
from modicum.valuation.supervised_prototypes import SupervisedPrototypes, supervised_prototypes
from modicum.valuation.threshold_knn_shapley import ThresholdKnnShapley, threshold_knn_shapley
from modicum.valuation.tracin import Tracin, tracin, tracin_fast, tracin_sketch
from modicum.valuation.trak import Trak, trak
from modicum.valuation.volume_based import (
    VolumeBased,
    robust_volume,
    volume,
    volume_leave_one_out,
    volume_values,
)

__all__ = [
    "DatasetCartography",
    "cartography",
    "DynUnc",
    "dyn_unc",
    "Entropy",
    "Grand",
    "grand",
    "LeastConfidence",
    "SupervisedPrototypes",
    "supervised_prototypes",
    "Aum",
    "BetaShapley",
    "CsShapley",
    "Cut",
    "DataBanzhaf",
    "DataOob",
    "DataShapley",
    "Datamodel",
    "Datamodels",
    "El2n",
    "Estimate",
    "Forgetting",
    "GShapley",
    "Game",
    "Influence",
    "Judging",
    "KnnBanzhaf",
    "KnnShapley",
    "KnnShapleyRegression",
    "Lava",
    "Loo",
    "Margin",
    "Memorization",
    "Quality",
    "RidgeLoo",
    "Ssp",
    "ThresholdKnnShapley",
    "Tracin",
    "Trak",
    "VolumeBased",
    "aum",
    "best_judging",
    "beta_shapley",
    "class_wise_transport",
    "class_wise_utility",
    "clopper_pearson",
    "count_for_precision",
    "cs_shapley",
    "data_banzhaf",
    "data_oob",
    "data_oob_of",
    "datamodels",
    "el2n",
    "entropy",
    "forgetting",
    "g_shapley",
    "influence_of_groups",
    "influence_of_subsets",
    "influence_on_inputs",
    "influence_on_loss",
    "influence_on_parameters",
    "knn_banzhaf",
    "knn_loo",
    "knn_shapley",
    "knn_shapley_regression",
    "lava",
    "least_confidence",
    "linear_datamodeling_score",
    "margin",
    "memorization",
    "platt",
    "position_tables",
    "precision_at",
    "quality_scores",
    "ridge_group_loo",
    "ridge_loo",
    "robust_volume",
    "self_influence",
    "semivalue_from_subsets",
    "semivalue_from_table",
    "semivalue_weights",
    "semivalues_from_permutations",
    "semivalues_from_positions",
    "shapley_from_table",
    "ssp",
    "threshold_knn_shapley",
    "tmc_shapley",
    "tracin",
    "tracin_fast",
    "tracin_sketch",
    "trak",
    "volume",
    "volume_leave_one_out",
    "volume_values",
]
