"""DeepFool: how far a sample is from being answered otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from modicum.arrays import NumPy, tensor
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.flops import count_flops
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import labels_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.gradients import Gradients, GradientTable

__all__ = ["DeepFool", "deepfool"]

ENTRIES = 1 << 21  # of the inputs and their gradients at a time
OVERSHOOT = 1e-4  # of what was walked, so that rounding does not leave a sample on the border


def deepfool(model: nn.Module, inputs: Tensor, steps: int = 50, classes: int = 10) -> Tensor:
    """How far every input is from the border of the class it is answered with.

    From `x_0 = x`, with `c` the class of the largest output f: for every other class `w_k = grad f_k - grad f_c` and
    `f'_k = f_k - f_c` at `x_t`, the nearest border of the model made linear there is that of
    `l = argmin_k |f'_k| / ||w_k||`, and `r_t = |f'_l| / ||w_l||^2 w_l` leads to it. This is repeated from
    `x + (1 + 1e-4) sum_t r_t` until the answer changes; the distance is `||sum_t r_t||`. Exact in one step for a model
    that is linear, and the same for outputs of any scale. All inputs of a block walk together; those that have arrived
    are left behind. Time is `classes` backward passes and two forward passes a step, one or two steps for most. Memory is
    that of the activations and `classes` gradients of a block.

    Args:
        model: From inputs (b, *shape) to (b, c) logits; it runs in evaluation mode and is left as it was.
        inputs: (n, *shape), standardized as in training: distances are in these units. They are not written to.
        steps: After which a sample that has not arrived keeps the distance it has come.
        classes: Most probable ones at the start whose borders are looked at; all where there are fewer.

    Returns:
        (n,) distances, higher = easier; infinite where no direction changes the answer.

    Raises:
        DataError: No samples, inputs that are not floating or not finite, fewer than two outputs, or steps or classes out
            of range.
        TrainingError: An output is not finite.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> deepfool(model, torch.tensor([[3.0, 1.0]])).round(decimals=4)  # 2 from (2, 2), over sqrt(2)
        tensor([1.4142])

    Reference:
        Moosavi-Dezfooli, Fawzi, Frossard, DeepFool: a simple and accurate method to fool deep neural networks, 2016,
        arXiv 1511.04599; Ducoffe, Precioso, Adversarial Active Learning for Deep Networks, 2018, arXiv 1802.09841.
    """
    for name, value, least in (("steps", steps, 1), ("classes", classes, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DataError(f"{name}={value!r}; expected an integer >= {least}")
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        got = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise DataError(f"inputs is {got}; expected a tensor of floating numbers, as distances need gradients")
    checked = tensor("inputs", inputs, tuple(range(1, 9)), "(n, *shape)")
    own = next((p for p in model.parameters() if p.is_floating_point()), checked)
    rows = max(1, ENTRIES // (checked[0].numel() * (classes + 1)))
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            parts = [_walked(model, part.to(own), steps, classes) for part in torch.split(checked, rows)]
        return torch.cat(parts).to(checked)
    finally:
        for module in training:
            module.training = True


def _walked(model: nn.Module, start: Tensor, steps: int, classes: int) -> Tensor:
    """(b,) distances of a block."""
    found = torch.zeros(len(start), dtype=start.dtype, device=start.device)
    walked = torch.zeros_like(start)
    left = torch.arange(len(start), device=start.device)  # those that have not arrived
    at = torch.empty(0, dtype=torch.int64)
    for step in range(steps + 1):
        x = start[left] + (1 + OVERSHOOT) * walked[left]
        if step:  # first without a graph, so that the gradients are only of those that have not arrived
            with torch.no_grad():
                stays = _outputs(model, x).argmax(1) == at[left, 0]
            left, x = left[stays], x[stays]
            if step == steps or not len(left):
                break
        outputs = _outputs(model, x.requires_grad_())
        if not step:
            at = outputs.detach().topk(min(classes, outputs.shape[1]), dim=1).indices  # the first is its own class
        moves, stuck = _steps_to_border(outputs, x, at[left])
        walked[left] += moves
        found[left] = torch.where(stuck, torch.inf, walked[left].flatten(1).norm(dim=1))
        left = left[~stuck & (moves.flatten(1) != 0).any(1)]  # who did not move is on the border, or has no way
        if not len(left):
            break
    return found


def _steps_to_border(outputs: Tensor, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The steps (b, *shape) to the nearest border of the model made linear, and (b,) whether there is none."""
    values = outputs.gather(1, at)
    gradients = []
    for k in range(at.shape[1]):
        (gradient,) = torch.autograd.grad(values[:, k].sum(), x, retain_graph=k + 1 < at.shape[1])
        gradients.append(gradient.flatten(1))
    own = gradients[0]
    apart = (values[:, :1] - values[:, 1:]).detach()
    nearest = torch.full((len(at),), torch.inf, dtype=x.dtype, device=x.device)
    scale, towards = torch.zeros_like(nearest), torch.zeros_like(own)
    for k, gradient in enumerate(gradients[1:]):
        w = gradient - own
        length = w.norm(dim=1)
        distance = torch.where(length > 0, apart[:, k] / length, torch.inf)
        nearer = distance < nearest
        nearest = torch.where(nearer, distance, nearest)
        scale = torch.where(nearer, distance / length, scale)
        towards = torch.where(nearer[:, None], w, towards)
    return (scale[:, None] * towards).reshape(len(at), *x.shape[1:]), nearest.isinf()


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    outputs: Tensor = model(x)
    if outputs.ndim != 2 or len(outputs) != len(x) or outputs.shape[1] < 2:
        raise DataError(
            f"model gives outputs of shape {tuple(outputs.shape)}; expected ({len(x)}, c) with c >= 2 classes"
        )
    if not bool(outputs.isfinite().all()):
        raise TrainingError("an output of the model is not finite: the training run has diverged; try a lower lr")
    return outputs


@dataclass(frozen=True)
class DeepFool:
    """The samples nearest the border of a young model: the smallest change of the input makes it answer otherwise.

    Args:
        steps: See `deepfool`.
        classes: See `deepfool`.
        until: Share of the training run after which the model is taken.
        per_class: Budget class by class, which needs labels; the paper, which knows none yet, does without.

    Raises:
        ModicumError: A number out of range.
    """

    steps: int = 50
    classes: int = 10
    until: float = 0.2
    per_class: bool = True

    card: ClassVar[Card] = Card(
        key="deepfool",
        title="The samples nearest the border of a young model",
        paper="Ducoffe, Precioso, Adversarial Active Learning for Deep Networks: a Margin Based Approach, 2018, "
        "arXiv 1802.09841; Moosavi-Dezfooli, Fawzi, Frossard, DeepFool, 2016, arXiv 1511.04599",
        saves=("samples", "labels"),
        modalities=("image", "tabular"),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("steps", "classes", "until"), shares=("until",))
        if self.classes < 2:
            raise ModicumError(f"method 'deepfool' option classes={self.classes}; expected an integer >= 2")

    def needs(self) -> tuple[Gradients]:
        """A model at one moment of its training."""
        from modicum.measurement.gradients import Gradients

        return (Gradients((self.until,)),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """The shortest distances, ties to the lower id; charged for all passes of the walks.

        Without `per_class` a budget per class gives as many in all.

        Raises:
            DataError: Text, whose inputs are numbers of tokens and cannot be changed a little.
        """
        labels = labels_of("train", data.train)
        if data.train.info.modality == "text":
            raise DataError("deepfool changes inputs a little, but text is token numbers; use margin or cal on text")
        table: GradientTable = measured[0]
        order = table.positions(data.train)
        of = labels[order].numpy()
        k = budget.count(len(of), len(np.unique(of)) if budget.per_class else 1)
        with ctx.ledger.clock("choose", self.card.key, labels=len(of) if self.per_class else 0) as counts:
            with count_flops() as counter:
                values = self._distances(table)
            counts.update(samples=len(of), extra_flops=counter.flops, uncounted=counter.uncounted)

            def pick(members: NumPy, wanted: int) -> tuple[NumPy, None]:
                return np.argsort(values[members], kind="stable")[:wanted], None

            picks = by_class(of, budget, pick)[0] if self.per_class else pick(np.arange(len(of)), k)[0]
        none = int(np.isinf(values).sum())
        note = f"{none} samples are infinitely far: no gradient" if none else ""
        return Selection.made(order, picks, values=values, unit="distance in standardized inputs", note=note)

    def _distances(self, table: GradientTable) -> NumPy:
        """(n,) in the order of the ids."""
        model = table.model()
        if model(table.train.prepare(table.train.inputs[:1], table.device)).shape[1] < 2:
            return np.zeros(len(table.train))  # of one class there is no border
        parts = []
        for _, inputs in table.train.batches(1024):
            prepared = table.train.prepare(inputs, table.device).float()
            parts.append(deepfool(model, prepared, self.steps, self.classes).cpu().double())
        found: NumPy = torch.cat(parts).numpy()
        return found
