"""How to make a model: every number of a training run in one visible place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from modicum.errors import TrainingError

__all__ = ["Recipe"]

LATER = {"later": True}
SCHEDULES = ("cosine", "one-cycle", "step", "constant")


@dataclass(frozen=True)
class Recipe:
    """How to make a model.

    Args:
        model: A model with options, such as `convnet(width=32)` (see `modicum.models`), `auto` to choose by the data,
            or a factory `() -> nn.Module`.
        epochs: Passes over the data; fractions are allowed.
        steps: Optimizer steps, instead of epochs.
        batch_size: Samples a step.
        optimizer: `sgd`, `adamw` or `lars`.
        lr: Learning rate at its highest.
        momentum: Of SGD and LARS, or beta1 of AdamW.
        nesterov: Whether the momentum of SGD is Nesterov's, or that of a heavy ball.
        weight_decay: L2 coefficient of SGD and LARS, decoupled decay of AdamW.
        schedule: `cosine` to zero, `one-cycle` (linear up, linear down), `step` (a tenth in the second half) or `constant`.
        warmup: Share of the run in which the learning rate rises linearly; one-cycle uses 0.3 when it is 0.
        rates: The learning rate of each step, instead of lr and schedule.
        shuffle: Whether every epoch has a new order, or that of the data.
        loss: `cross-entropy`, or `mse` between the outputs and the targets: class indices as one-hot rows less 1 / c.
        label_smoothing: Probability mass spread over all classes.
        ema: Decay per step of an exponential moving average of the weights, used instead of them at the end; 0 is off.
        precision: `float32` or `bfloat16` (autocast).
        channels_last: Memory format of images.
        clip: Largest norm of the gradient; 0 is off.
        augment: Augmentations by name with options, such as `("crop(padding=4)", "flip")` (see `modicum.data.augment`).

    Raises:
        TrainingError: A number makes no sense.

    Example:
        >>> Recipe(model="mlp", epochs=5).steps_for(1000)
        40
    """

    model: str | Callable[[], Any] = "auto"
    epochs: float = 20.0
    steps: int | None = None
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = field(default=True, metadata=LATER)
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "one-cycle", "step", "constant"] = "cosine"
    warmup: float = 0.0
    rates: tuple[float, ...] = field(default=(), metadata=LATER)
    shuffle: bool = field(default=True, metadata=LATER)
    loss: Literal["cross-entropy", "mse"] = field(default="cross-entropy", metadata=LATER)
    label_smoothing: float = 0.0
    ema: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    clip: float = 0.0
    augment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates))  # JSON has lists only
        checks: tuple[tuple[str, bool, str], ...] = (
            ("epochs", 0 < self.epochs < math.inf, "a number > 0"),
            ("steps", self.steps is None or (isinstance(self.steps, int) and self.steps >= 1), "an integer >= 1"),
            ("batch_size", isinstance(self.batch_size, int) and self.batch_size >= 1, "an integer >= 1"),
            ("optimizer", self.optimizer in ("sgd", "adamw", "lars"), "'sgd', 'adamw' or 'lars'"),
            ("lr", 0 < self.lr < math.inf, "a number > 0"),
            ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, "a number >= 0"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(map(repr, SCHEDULES))}"),
            ("warmup", 0 <= self.warmup < 1, "a share in [0, 1)"),
            ("rates", all(0 <= rate < math.inf for rate in self.rates), "numbers >= 0, one a step"),
            ("loss", self.loss in ("cross-entropy", "mse"), "'cross-entropy' or 'mse'"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "a share in [0, 1)"),
            ("ema", 0 <= self.ema < 1, "a decay in [0, 1)"),
            ("precision", self.precision in ("float32", "bfloat16"), "'float32' or 'bfloat16'"),
            ("clip", self.clip >= 0, "a number >= 0"),
            ("augment", not isinstance(self.augment, str), "a tuple such as ('flip',)"),
        )
        for name, right, expected in checks:
            if not right:
                raise TrainingError(f"recipe {name}={getattr(self, name)!r}; expected {expected}")
        if self.rates and self.steps != len(self.rates):
            raise TrainingError(f"recipe has {len(self.rates)} rates and steps={self.steps}; expected one rate a step")

    def steps_for(self, n: int) -> int:
        """Optimizer steps on n samples; the last batch of an epoch may be smaller."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * -(-n // self.batch_size)))

    def visits_for(self, n: int) -> int:
        """Samples that the schedule visits on n of them, when nothing chooses among them.

        Example:
            >>> Recipe(epochs=5).visits_for(1000)
            5000
        """
        return round(self.steps_for(n) / -(-n // self.batch_size) * n)

    def whole_epochs(self, n: int, share: float = 1.0) -> int:
        """Whole epochs in a share of the run on n samples, at least one.

        Example:
            >>> Recipe(epochs=5).whole_epochs(1000), Recipe(epochs=5).whole_epochs(1000, 0.4)
            (5, 2)
        """
        epochs = self.steps_for(n) / -(-n // self.batch_size)
        return max(1, min(round(share * epochs), int(epochs)))
