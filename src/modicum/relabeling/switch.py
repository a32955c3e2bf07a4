"""When to leave a prior's targets: two exponential averages of the loss that have met."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modicum.errors import ModicumError

__all__ = ["REFERENCE_STEPS", "StepRule", "SwitchRule"]

REFERENCE_STEPS = 3900  # 100 epochs at a tenth of CIFAR-10 in batches of 128: the shortest published run


class SwitchRule(nn.Module):
    """The targets are left when their loss no longer falls quickly.

    After each step with loss c, in this order: `g = exp(-max(slow - fast, 0))`, `fast = b_f fast + (1 - b_f) c`,
    `slow = b_s slow + (1 - b_s) fast`. The switch is made, for good, once g has reached the threshold. With the defaults
    that is not before 528 steps for a loss of 1, nor before 2,865 for one of 0.2: in a shorter run it never fires.

    The state is saved with a module that holds the rule, in double precision on the CPU whatever the device.

    Args:
        beta_fast: Decay of the average of the loss, b_f.
        beta_slow: Decay of the average of that average, b_s.
        init_slow: Where the slow one starts.
        init_fast: Where the fast one starts.
        threshold: Of g.

    Raises:
        ModicumError: A number is outside its range.

    Example:
        >>> rule = SwitchRule()
        >>> [round(rule.update(loss), 6) for loss in (0.9, 0.8, 0.7)]
        [0.367879, 0.37154, 0.375163]
        >>> round(rule.fast, 6), round(rule.slow, 6), rule.switched
        (0.9994, 1.970289, False)

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669 (the rule
        is that of the authors' program).
    """

    def __init__(
        self,
        beta_fast: float = 0.999,
        beta_slow: float = 0.99,
        init_slow: float = 2.0,
        init_fast: float = 1.0,
        threshold: float = 0.995,
    ) -> None:
        super().__init__()
        for name, value in (("beta_fast", beta_fast), ("beta_slow", beta_slow)):
            if not 0 <= value < 1:
                raise ModicumError(f"{name}={value!r}; expected a decay in [0, 1)")
        for name, value in (("init_slow", init_slow), ("init_fast", init_fast)):
            if not math.isfinite(value):
                raise ModicumError(f"{name}={value!r}; expected a finite number")
        if not 0 < threshold <= 1:
            raise ModicumError(f"threshold={threshold!r}; expected a number in (0, 1]")
        self.beta_fast, self.beta_slow, self.threshold = beta_fast, beta_slow, threshold
        self.g, self.fast, self.slow = 0.0, float(init_fast), float(init_slow)

    @classmethod
    def scaled(
        cls, steps: int, beta_fast: float = 0.999, beta_slow: float = 0.99, init_slow: float = 2.0,
        init_fast: float = 1.0, threshold: float = 0.995, reference: int = REFERENCE_STEPS,
    ) -> SwitchRule:  # fmt: skip
        """The same rule for a run of any length: a step counts as many as there are in the reference run for it.

        Decays are raised to the power `reference / steps`, which for small rates multiplies them by it.

        Args:
            steps: Planned.
            beta_fast: Of the reference run, as are the numbers that follow.
            beta_slow: See `SwitchRule`.
            init_slow: See `SwitchRule`.
            init_fast: See `SwitchRule`.
            threshold: See `SwitchRule`.
            reference: Steps of the run that the decays were made for.
        """
        power = reference / steps
        return cls(beta_fast**power, beta_slow**power, init_slow, init_fast, threshold)

    @property
    def switched(self) -> bool:
        """Whether the targets are left."""
        return self.g >= self.threshold

    def update(self, loss: float) -> float:
        """Learn the loss on the targets in the step that was made; the new g. Once switched nothing changes any more."""
        if not self.switched:
            self.g = math.exp(-max(self.slow - self.fast, 0.0))
            self.fast = self.beta_fast * self.fast + (1 - self.beta_fast) * float(loss)
            self.slow = self.beta_slow * self.slow + (1 - self.beta_slow) * self.fast
        return self.g

    def get_extra_state(self) -> Tensor:
        """(3,) g, fast and slow."""
        return torch.tensor([self.g, self.fast, self.slow], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of `get_extra_state`."""
        self.g, self.fast, self.slow = state.tolist()


class StepRule(nn.Module):
    """The targets are left after a number of steps, whatever the loss.

    Args:
        steps: With the targets; 0 never uses them.

    Example:
        >>> rule = StepRule(2)
        >>> rule.update(0.9), rule.update(0.9)
        (0.0, 1.0)
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self.done = steps, 0

    @property
    def g(self) -> float:
        """1 once the targets are left, else 0."""
        return float(self.done >= self.steps)

    @property
    def switched(self) -> bool:
        """Whether the targets are left."""
        return self.done >= self.steps

    def update(self, loss: float) -> float:
        """Count a step; the new g."""
        self.done += 1
        return self.g

    def get_extra_state(self) -> Tensor:
        """() the number of steps so far."""
        return torch.tensor(self.done)

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of `get_extra_state`."""
        self.done = int(state)
