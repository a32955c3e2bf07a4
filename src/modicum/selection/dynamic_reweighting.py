"""Dynamic reweighting: the losses of a batch say how much each of its samples counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from modicum.arrays import Array, back, tensor
from modicum.errors import DataError
from modicum.methods import Card
from modicum.options import check_options
from modicum.training.observed import everywhere
from modicum.training.order import Shuffle

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.training.recipe import Recipe

__all__ = ["DynamicLoss", "DynamicReweighting", "DynamicSampler", "dynamic_weights"]

STRATEGIES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "lin-upper": lambda h, delta: (h + delta).clamp(max=delta),
    "quadratic": lambda h, delta: 1 - (h / delta) ** 2,
    "extremes": lambda h, delta: h.abs(),
    "linear": lambda h, delta: (h + delta) / 2,
    "uniform": lambda h, delta: torch.zeros_like(h),
}
"""What a strategy makes of the normalized losses; the names are those of the paper. One of the released programs calls
`linear` "upper", the other one `lin-upper`."""


def dynamic_weights(losses: Array, strategy: str = "lin-upper", temperature: float = 1.0, delta: float = 1.0) -> Array:
    """Weights of the samples of a batch from their losses.

    The losses are mapped to [-delta, delta], `h_i = delta (2 l_i - (max l + min l)) / max(max l - min l, 1e-6)`, a
    strategy gives `f(h_i)`, and `w_i = exp(f_i / r) / sum_j exp(f_j / r)` is what maximizes
    `sum_i w_i f_i - r KL(w || uniform)`:

    - `lin-upper`: `min(h + delta, delta)`; the lowest losses count less, all above the middle of the range the same;
    - `quadratic`: `1 - h^2 / delta^2`; both ends count less;
    - `extremes`: `|h|`; both ends count more;
    - `linear`: `(h + delta) / 2`;
    - `uniform`: 0.

    With `delta = 1` no weight is more than `exp(1 / r)` times another. Weights do not change when all losses are
    multiplied by a positive number or shifted by one.

    Args:
        losses: (m,) of the whole batch, over all devices; gradients do not flow through the weights.
        strategy: One of those above.
        temperature: r > 0; the larger, the more equal the weights, infinite for equal ones.
        delta: Half the range that losses are mapped to.

    Returns:
        (m,) weights that sum to one.

    Raises:
        DataError: An empty batch, a loss that is not finite, an unknown strategy or a number out of range.

    Example:
        >>> dynamic_weights(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()
        [0.119..., 0.232..., 0.324..., 0.324...]

    Reference:
        Sow, Woisetschlager, Bulusu, Wang, Jacobsen and Liang, Dynamic Loss-Based Sample Reweighting for Improved Large
        Language Model Pretraining, 2025, arXiv 2502.06733.
    """
    _check(strategy, temperature, delta)
    checked = tensor("losses", losses, (1,), "(m,), one loss a sample")
    return back(_weights(checked, strategy, temperature, delta).cpu().numpy(), losses)


def _check(strategy: str, temperature: float, delta: float) -> None:
    if strategy not in STRATEGIES:
        raise DataError(f"strategy={strategy!r}; expected {', '.join(map(repr, STRATEGIES))}")
    for name, value, most in (("temperature", temperature, math.inf), ("delta", delta, 1e30)):
        if not 0 < value <= most:
            raise DataError(f"{name}={value!r}; expected a number > 0")


def _weights(losses: Tensor, strategy: str, temperature: float, delta: float) -> Tensor:
    """Without the checks, two of which would make an accelerator wait."""
    low, high = losses.aminmax()
    normalized = delta * (2 * losses - (high + low)) / (high - low).clamp(min=1e-6)
    return (STRATEGIES[strategy](normalized, delta) / temperature).softmax(0)


class DynamicLoss(nn.Module):
    """A batch's loss `sum_i w_i l_i`, the weights from the losses themselves (see `dynamic_weights`).

    In a loop of your own::

        criterion = DynamicLoss(warmup=1000)
        for inputs, targets in loader:
            losses = cross_entropy(model(inputs), targets, reduction="none")
            criterion(losses).backward()

    With several processes (`torch.distributed`) the weights are those of the whole batch: the losses of all processes
    are gathered, without gradients, and each process gives `D sum_local w_i l_i`, so that the mean of the gradients over
    the D processes, which data-parallel training forms, is the gradient on the whole batch. Processes may have different
    numbers of samples, none of them zero.

    With `tokens`, samples count as their share `a_i` of the tokens of the batch as well: `m sum_i w_i a_i l_i`, which for
    equal weights is the mean over all tokens.

    Args:
        strategy: See `dynamic_weights`.
        temperature: r, after the warm-up.
        delta: Half the range that losses are mapped to.
        warmup: Steps, counted in training mode, in which `warm_temperature` holds.
        warm_temperature: Infinite for equal weights.

    Raises:
        DataError: A number is out of range, or a loss is not finite.

    Example:
        >>> criterion = DynamicLoss(strategy="quadratic", warmup=1)
        >>> losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
        >>> float(criterion(losses)), round(float(criterion(losses)), 4)
        (2.5, 2.5)

    Reference:
        Sow et al., Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining, 2025,
        arXiv 2502.06733.
    """

    def __init__(
        self,
        strategy: str = "lin-upper",
        temperature: float = 1.0,
        delta: float = 1.0,
        warmup: int = 0,
        warm_temperature: float = math.inf,
    ) -> None:
        super().__init__()
        _check(strategy, temperature, delta)
        _check(strategy, warm_temperature, delta)
        if warmup < 0:
            raise DataError(f"warmup={warmup!r}; expected a number of steps >= 0")
        self.strategy, self.temperature, self.delta = strategy, temperature, delta
        self.warmup, self.warm_temperature = warmup, warm_temperature
        self.steps = 0

    def forward(self, losses: Tensor, tokens: Tensor | None = None) -> Tensor:
        """The loss to differentiate.

        Args:
            losses: (b,) of the samples of this process.
            tokens: (b,) how many tokens each loss is the mean of.
        """
        if losses.ndim != 1 or not len(losses) or (tokens is not None and tokens.shape != losses.shape):
            given = "" if tokens is None else f" and tokens {tuple(tokens.shape)}"
            raise DataError(f"losses has shape {tuple(losses.shape)}{given}; expected (b,), one loss a sample")
        seen = losses.detach()
        whole, start, world = everywhere(seen.float() if seen.element_size() < 4 else seen)
        warm = self.steps < self.warmup
        temperature = self.warm_temperature if warm else self.temperature
        if not bool(whole.isfinite().all()):
            raise DataError(f"losses[{int((~whole.isfinite()).nonzero()[0])}] is not finite; expected finite losses")
        weights = _weights(whole, self.strategy, temperature, self.delta)[start : start + len(losses)]
        self.steps += self.training
        if tokens is not None:
            counts, _, _ = everywhere(tokens.float())
            if not bool((counts > 0).all()):
                raise DataError(
                    f"tokens[{int((tokens <= 0).nonzero()[0])}] is 0; expected at least one in every sample"
                )
            weights = weights * tokens * (len(counts) / counts.sum())
        return world * (weights.to(losses) * losses).sum()

    def get_extra_state(self) -> dict[str, int]:
        """The number of steps so far."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """The inverse of `get_extra_state`."""
        self.steps = int(state["steps"])


class DynamicSampler(Shuffle):
    """Plain training whose batches are weighed by their own losses; see `dynamic_weights`.

    Args:
        n: Number of samples.
        seed: Of the order.
        shuffle: Whether the order is new in every epoch.
        method: Strategy and temperatures.
        warmup: Steps.
    """

    def __init__(self, n: int, seed: int, shuffle: bool, method: DynamicReweighting, warmup: int) -> None:
        super().__init__(n, seed, shuffle)
        self.method, self.warmup = method, warmup
        self.description = repr(method)

    def weigh(self, step: int, losses: Tensor) -> Tensor:
        """(b,) factors with mean one for the losses of a batch."""
        method = self.method
        temperature = method.temperature if step >= self.warmup else method.warm_temperature or math.inf
        return len(losses) * _weights(losses, method.strategy, temperature, method.delta)


@dataclass(frozen=True)
class DynamicReweighting:
    """Train on all data, the samples of every batch weighed by their losses in it.

    It visits as many samples as plain training: what it may save are steps to a given loss.

    Args:
        strategy: `lin-upper` (low losses count less), `quadratic`, `extremes`, `linear` or `uniform`.
        temperature: r; the largest weight is at most `exp(1 / r)` times the smallest with delta = 1.
        delta: Half the range that the losses of a batch are mapped to.
        warmup: Share of the steps, at the beginning, with `warm_temperature`.
        warm_temperature: r of the warm-up; 0 for equal weights.
    """

    strategy: str = "lin-upper"
    temperature: float = 1.0
    delta: float = 1.0
    warmup: float = 0.05
    warm_temperature: float = 0.0

    card: ClassVar[Card] = Card(
        key="dynamic-reweighting",
        title="Weigh the samples of a batch by their losses",
        paper="Sow et al., Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining, 2025, "
        "arXiv 2502.06733",
        saves=("compute",),
        tasks=("classification", "regression"),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("temperature", "delta"),
            not_negative=("warm_temperature",),
            shares=("warmup",),
            choices={"strategy": tuple(STRATEGIES)},
        )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def sampler(self, data: Splits, recipe: Recipe, ctx: Context) -> DynamicSampler:
        """Plain order, weighed batches."""
        n = len(data.train)
        if n < 1:
            raise DataError("train has 0 samples; expected at least one")
        return DynamicSampler(n, ctx.seed, recipe.shuffle, self, round(self.warmup * recipe.steps_for(n)))
