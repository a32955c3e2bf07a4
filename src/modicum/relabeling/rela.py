"""RELA: begin with the targets of a prior model, go on with any other way of learning."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import generator
from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.errors import DataError, ModicumError
from modicum.methods import Card, Measurement, Pretraining, make
from modicum.pretraining.learner import Backbone, Batches, Learner, Plan
from modicum.relabeling.prior import Prior
from modicum.relabeling.prior_features import PriorTargets
from modicum.relabeling.supervised import Supervised
from modicum.relabeling.switch import StepRule, SwitchRule
from modicum.spec import parse_call
from modicum.training.recipe import Recipe

__all__ = ["Rela", "rela_loss"]

SWITCHES = ("adaptive", "scaled", "blend", "constant", "never", "always")


def rela_loss(a: Tensor, b: Tensor, targets: Tensor) -> Tensor:
    """How far the predictions from two views are from the direction of the targets.

    `l = (1 - cos(a, y)) / 2 + (1 - cos(b, y)) / 2`, a number from 0 to 2 for each sample.

    Args:
        a: (b, m) predictions from the first view.
        b: (b, m) predictions from the second view.
        targets: (b, m).

    Returns:
        (b,) losses in float32.

    Raises:
        DataError: The shapes differ.

    Example:
        >>> y = torch.eye(2)
        >>> rela_loss(y, -y, y).tolist()
        [1.0, 1.0]

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669.
    """
    if a.ndim != 2 or not a.shape == b.shape == targets.shape:
        shapes = [tuple(t.shape) for t in (a, b, targets)]
        raise DataError(f"predictions and targets have shapes {shapes}; expected the same (b, m)")
    y = targets.float()
    return 1 - (F.cosine_similarity(a.float(), y) + F.cosine_similarity(b.float(), y)) / 2


class _Learner(Learner):
    """A base learner, and before it the targets."""

    def __init__(
        self, base: Learner, light: Views | None, targets: Tensor, rule: SwitchRule | StepRule, blend: bool, seed: int
    ) -> None:
        super().__init__(base.backbone, light)
        del self._modules["backbone"]
        self.__dict__["backbone"] = base.backbone  # registered once, as part of the base
        self.base, self.rule, self.blend, self.last = base, rule, blend, 0.0
        self.register_buffer("targets", targets, persistent=False)  # a measurement, read anew by whoever resumes
        with torch.random.fork_rng(devices=[]):  # its own numbers, so that those of the base stay the same
            torch.default_generator.manual_seed(generator(seed, "rela head").initial_seed())
            self.predict = nn.Linear(base.backbone.width, targets.shape[1])

    @property
    def mode(self) -> str:
        if self.rule.switched:
            return self.base.mode
        return f"blend {self.base.mode}" if self.blend else "relabel"

    def begin(self, batches: Batches) -> None:
        self.base.begin(batches)

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        if self.rule.switched:
            return self.base(inputs, targets, indices)  # type: ignore[no-any-return]  # nn.Module calls are Any
        wanted = self.targets[indices]  # type: ignore[index]  # a buffer
        a, b = (self.predict(self.backbone(view)) for view in self.views(inputs, 2))
        losses = rela_loss(a, b, wanted)
        self.last = float(losses.detach().mean())
        if not self.blend:
            return losses, a
        others, outputs = self.base(inputs, targets, indices)
        return (1 - self.rule.g) * losses + self.rule.g * others.float(), outputs

    def after(self) -> None:
        self.base.after()  # teachers follow from the first step on
        if not self.rule.switched:
            self.rule.update(self.last)


@dataclass(frozen=True)
class Rela:
    """Targets of a free prior model first, then any base algorithm.

    A prior, even an untrained one, sees every sample once; its whitened features are targets. The backbone learns them
    under light augmentation with `rela_loss` through one linear layer, at less cost a step than most bases. When that
    loss no longer falls quickly the targets are left for good and the base goes on with its own augmentation. Teachers of
    the base follow from the first step.

    Memory is that of the base and of n m float32 targets.

    Args:
        base: Key of a pretraining method, with options or without, or `supervised`.
        prior: `untrained`, `pixels`, `trained:DATA`, a folder of `modicum pretrain`, `MODEL@WEIGHTS.safetensors`,
            `timm:NAME`, `hf:NAME` (see `modicum.relabeling.open_prior`); from Python also a `Prior`, a network, or the
            data set that `relabel` made.
        switch: `adaptive` is the published rule (see `SwitchRule`), which does not fire in runs of less than some 2,000
            steps; `scaled` the same at the pace of this run; `blend` weighs the two losses by 1 - g and g of the scaled
            rule; `constant` leaves the targets after a share of the steps; `never` is the base; `always` stays with the
            targets.
        until: Share of the steps that `constant` has targets for.
        dim: Width of the targets; the smaller of the widths of the student and of the prior when 0.
        train_head: Whether the linear layer learns; the authors' program leaves it as it was drawn.
        light: Augmentation while there are targets, see `modicum.data.VIEWS`, or names.
        augment: Augmentation of the base; its own when `base`.
        side: Of the images that the prior gets, in px; what suits it when 0.
        statistics: How images are standardized for the prior: `auto`, `data` or `imagenet`.
        beta_fast: See `SwitchRule`, as are the numbers that follow.
        beta_slow: See `SwitchRule`.
        init_fast: See `SwitchRule`.
        init_slow: See `SwitchRule`.
        threshold: See `SwitchRule`.

    Raises:
        ModicumError: An option is not one of those.

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669.
    """

    base: str = "byol(hidden=1024, final_momentum=None)"  # as in the paper of RELA
    prior: Any = "untrained"
    switch: str = "adaptive"
    until: float = 0.2
    dim: int = 0
    train_head: bool = True
    light: str | tuple[str, ...] = "light"
    augment: str | tuple[str, ...] = "base"
    side: int = 0
    statistics: str = "auto"
    beta_fast: float = 0.999
    beta_slow: float = 0.99
    init_fast: float = 1.0
    init_slow: float = 2.0
    threshold: float = 0.995

    card: ClassVar[Card] = Card(
        key="rela",
        title="Targets of a free prior model first, then any base algorithm",
        paper="Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669",
        saves=("compute",),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe(
        "resnet18",
        epochs=100,
        batch_size=128,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.01,
        schedule="constant",
        precision="bfloat16",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.prior, (str, Prior, nn.Module, Dataset)):
            raise ModicumError(
                f"prior is a {type(self.prior).__name__}; expected a text, a Prior, an nn.Module or relabeled data"
            )
        checks = (
            ("switch", self.switch in SWITCHES, f"one of {', '.join(SWITCHES)}"),
            ("until", 0 <= self.until <= 1, "a share in [0, 1]"),
            ("dim", isinstance(self.dim, int) and self.dim >= 0, "an integer >= 0"),
            ("side", isinstance(self.side, int) and self.side >= 0, "px >= 0"),
            ("statistics", self.statistics in ("auto", "data", "imagenet"), "auto, data or imagenet"),
        )
        for name, right, expected in checks:
            if not right:
                raise ModicumError(f"rela: {name}={getattr(self, name)!r}; expected {expected}")
        self._rule(1)

    @property
    def labels(self) -> bool:
        """Whether labels are read."""
        return parse_call(self.base)[0] == "supervised"

    def needs(self) -> tuple[Measurement, ...]:
        """What the base needs, and targets made of the prior's features."""
        own = () if self.switch == "never" else (PriorTargets(self.prior, self.dim, self.side, self.statistics),)
        return (*self._base().needs(), *own)

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan, *measured: Any) -> Learner:
        """What is trained."""
        base = self._base()
        known = len(base.needs())
        learner = base.learner(data, backbone, plan, *measured[:known])
        if self.switch == "never":
            return learner  # type: ignore[no-any-return]  # either kind of base gives a learner
        targets: Tensor = measured[known]
        if targets.ndim != 2 or len(targets) != len(data) or not bool(targets.isfinite().all()):
            raise DataError(
                f"targets are {tuple(targets.shape)}; expected finite numbers of shape ({len(data)}, m), one row a sample "
                "in the order of the data"
            )
        light = make_views(self.light, data) if data.info.modality == "image" else None
        made = _Learner(learner, light, targets, self._rule(plan.steps), self.switch == "blend", plan.seed)
        made.predict.requires_grad_(bool(self.train_head))
        return made

    def _rule(self, steps: int) -> SwitchRule | StepRule:
        numbers = (self.beta_fast, self.beta_slow, self.init_slow, self.init_fast, self.threshold)
        if self.switch == "adaptive":
            return SwitchRule(*numbers)
        if self.switch in ("scaled", "blend"):
            return SwitchRule.scaled(steps, *numbers)
        return StepRule(steps if self.switch == "always" else round(self.until * steps))

    def _base(self) -> Any:
        key, options = parse_call(self.base)
        base: Any
        if key == "supervised":
            wrong = sorted(set(options) - {f.name for f in fields(Supervised)})
            if wrong:
                raise ModicumError(f"base 'supervised' has no option {wrong[0]!r}; its options are augment")
            base = Supervised(**options)
        else:
            base = make(self.base)
            if not isinstance(base, Pretraining) or isinstance(base, Rela):
                raise ModicumError(
                    f"rela: base={self.base!r}; expected 'supervised' or the key of a pretraining method"
                )
        return base if self.augment == "base" else replace(base, augment=self.augment)
