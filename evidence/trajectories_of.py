"""The common setting of matching trajectories on digits: a multilayer perceptron of 64 and 64 units, 20 experts, 20 steps of
the student to where the expert is two epochs later."""

from __future__ import annotations

from typing import Any

__all__ = ["DIGITS"]

DIGITS: dict[str, Any] = {
    "iterations": 150,
    "syn_steps": 20,
    "expert_epochs": 2,
    "max_start": 5,
    "lr_img": 20.0,
    "lr_lr": 1e-4,
    "lr_start": 0.05,
    "experts": 20,
    "lr_expert": 0.05,
    "batch_real": 32,
    "model": "mlp(hidden=64)",
    "augment": "none",
}
