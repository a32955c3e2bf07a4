"""Can a few synthetic samples replace the data?

A *distiller* makes a small training set: inputs that were never recorded but computed, such that a model trained on
them does nearly as well as one trained on all data.
"""

from modicum.data.siamese import Transforms, apply_dsa, draw_dsa, parse_strategy
from modicum.distillation.artefact import Source, export, is_artefact, load_distilled, read_source, save_distilled
from modicum.distillation.bptt import BPTT, addressed, addresses_for
from modicum.distillation.cafe import CAFE, discrimination_loss, stage_distance, stage_features
from modicum.distillation.convolutional import conv_ntk
from modicum.distillation.datm import DATM, upper_epoch
from modicum.distillation.dc import DC, loops_for
from modicum.distillation.dcc import DCC
from modicum.distillation.dd import DD
from modicum.distillation.diffusion import Denoiser, ddim, noised, signal
from modicum.distillation.distilled import Distilled, Snapshot, evaluation_recipe
from modicum.distillation.dm import DM, class_means, dm_loss
from modicum.distillation.dsa import DSA
from modicum.distillation.evaluate import (
    ARCHITECTURES,
    Trials,
    augmentation_robust_score,
    best_snapshot,
    controls,
    cross_architecture,
    label_robust_score,
    random_real,
    robust_scores,
    train_and_test,
)
from modicum.distillation.frepo import FRePo, PooledRun, fitted_head, regression_recipe, ridge_predict
from modicum.distillation.ftd import FTD
from modicum.distillation.g_vbsm import GVBSM, densification_loss, layer_statistics
from modicum.distillation.idc import IDC, decode_grid, encode_grid
from modicum.distillation.implicit import implicit_gradient, inverse_product
from modicum.distillation.initial import averaged_logits, known_samples, representative_samples
from modicum.distillation.kernels import Kernel, kernel_of, laplace, rbf
from modicum.distillation.kip import KIP, kernel_answers, wide_recipe
from modicum.distillation.ld import LD, project_labels, ridge_head
from modicum.distillation.matching import class_gradients, gradient_distance
from modicum.distillation.minimax import Minimax, minimax_losses
from modicum.distillation.mtt import MTT
from modicum.distillation.ntk import fc_ntk, fc_ntk_diagonal
from modicum.distillation.pool import Pool
from modicum.distillation.preview import contact_sheet, natural
from modicum.distillation.rcig import RCIG, Linearized
from modicum.distillation.rded import RDED, lowest_loss_crops, tile, untile
from modicum.distillation.ridge import kernel_weights, kip_loss, kip_predict, label_solve
from modicum.distillation.smooth_expert import SmoothExpert, balance_weight, intermediate_steps, perturbed
from modicum.distillation.sre2l import Inversion, SRe2L, bn_statistics_loss
from modicum.distillation.teacher import Teacher, TeacherLoss
from modicum.distillation.teaching import (
    Ensemble,
    Taught,
    TrainedTeacher,
    check_teacher,
    rebuild_teacher,
    student_recipe,
)
from modicum.distillation.tesla import TESLA
from modicum.distillation.trajectory import TrajectoryMatching, trajectory_distance
from modicum.distillation.unroll import Unrolled, flat_network, unrolled_gradient
from modicum.distillation.whitening import Whitening, whitened, zca

__all__ = [
    "ARCHITECTURES",
    "BPTT",
    "CAFE",
    "DATM",
    "DC",
    "DCC",
    "DD",
    "DM",
    "DSA",
    "Denoiser",
    "Distilled",
    "Ensemble",
    "FRePo",
    "FTD",
    "GVBSM",
    "IDC",
    "Inversion",
    "KIP",
    "Kernel",
    "LD",
    "Linearized",
    "MTT",
    "Minimax",
    "Pool",
    "PooledRun",
    "RCIG",
    "RDED",
    "SRe2L",
    "SmoothExpert",
    "Snapshot",
    "Source",
    "TESLA",
    "Taught",
    "Teacher",
    "TeacherLoss",
    "TrainedTeacher",
    "TrajectoryMatching",
    "Transforms",
    "Trials",
    "Unrolled",
    "Whitening",
    "addressed",
    "addresses_for",
    "apply_dsa",
    "augmentation_robust_score",
    "averaged_logits",
    "balance_weight",
    "best_snapshot",
    "bn_statistics_loss",
    "check_teacher",
    "class_gradients",
    "class_means",
    "contact_sheet",
    "controls",
    "conv_ntk",
    "cross_architecture",
    "ddim",
    "decode_grid",
    "densification_loss",
    "discrimination_loss",
    "dm_loss",
    "draw_dsa",
    "encode_grid",
    "evaluation_recipe",
    "export",
    "fc_ntk",
    "fc_ntk_diagonal",
    "fitted_head",
    "flat_network",
    "gradient_distance",
    "implicit_gradient",
    "intermediate_steps",
    "inverse_product",
    "is_artefact",
    "kernel_answers",
    "kernel_of",
    "kernel_weights",
    "kip_loss",
    "kip_predict",
    "known_samples",
    "label_robust_score",
    "label_solve",
    "laplace",
    "layer_statistics",
    "load_distilled",
    "loops_for",
    "lowest_loss_crops",
    "minimax_losses",
    "natural",
    "noised",
    "parse_strategy",
    "perturbed",
    "project_labels",
    "random_real",
    "rbf",
    "read_source",
    "rebuild_teacher",
    "regression_recipe",
    "representative_samples",
    "ridge_head",
    "ridge_predict",
    "robust_scores",
    "save_distilled",
    "signal",
    "stage_distance",
    "stage_features",
    "student_recipe",
    "tile",
    "train_and_test",
    "trajectory_distance",
    "unrolled_gradient",
    "untile",
    "upper_epoch",
    "whitened",
    "wide_recipe",
    "zca",
]
