"""The one engine of unrolled training: what a loss after N steps says about everything those steps were made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modicum.errors import ModicumError, TrainingError

if TYPE_CHECKING:
    from modicum.flops import FlopTable

__all__ = ["Unrolled", "flat_network", "unrolled_gradient"]

Inner: TypeAlias = Callable[..., Tensor]  # (theta, n, *leaves) -> scalar
Outer: TypeAlias = Callable[[Tensor], Tensor]
MODES = ("adjoint", "unroll", "tesla")


@dataclass(frozen=True, eq=False)
class Unrolled:
    """What `unrolled_gradient` gives; nothing in it carries a graph.

    Args:
        loss: () the outer loss and all intermediate ones, summed.
        theta: The parameters after the last step.
        leaves: The gradient of each leaf, zero where the loss does not depend on it; None for one that was not asked for.
        rates: The gradient of the step sizes, in their shape; None when it was not asked for.
        start: The gradient of the first parameters.
        parts: Each loss by its step; the outer one is at N.
        skipped: Whether the loss was above the limit, so that there are no gradients.
    """

    loss: Tensor
    theta: Tensor
    leaves: tuple[Tensor | None, ...] = ()
    rates: Tensor | None = None
    start: Tensor | None = None
    parts: Mapping[int, Tensor] = field(default_factory=dict)
    skipped: bool = False


def flat_network(network: nn.Module) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """A network as a function of one vector.

    Args:
        network: Its parameters are read, never written.

    Returns:
        (p,) a copy of its parameters in the order of `parameters()`, and `call(theta, x)`, its outputs with others. With
        `torch.func.vmap(call, (0, None))` many networks, (j, p), see the same inputs.

    Raises:
        ModicumError: The network has batch norm in training mode: its statistics are no parameters.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> theta, call = flat_network(layer)
        >>> x = torch.rand(4, 3)
        >>> theta.shape, torch.equal(call(theta, x), layer(x))
        (torch.Size([8]), True)
    """
    for name, module in network.named_modules():
        if module.training and getattr(module, "running_mean", None) is not None:
            raise ModicumError(
                f"network layer {name!r} is a {type(module).__name__} with running statistics, which are not among the "
                "parameters; use a network with instance norm, or freeze them by network.eval()"
            )
    named = list(network.named_parameters())
    names, shapes, sizes = [n for n, _ in named], [p.shape for _, p in named], [p.numel() for _, p in named]
    theta = torch.cat([p.detach().flatten() for _, p in named])

    def call(theta: Tensor, x: Tensor) -> Tensor:
        parts = (part.view(shape) for part, shape in zip(torch.split(theta, sizes), shapes, strict=True))
        out: Tensor = functional_call(network, dict(zip(names, parts, strict=True)), (x,))
        return out

    return theta, call


def unrolled_gradient(
    loss: Inner,
    theta: Tensor,
    leaves: Sequence[Tensor],
    rates: Tensor | float,
    outer: Outer,
    *,
    steps: int,
    momentum: float = 0.0,
    also: Mapping[int, Outer] | None = None,
    mode: Literal["adjoint", "unroll", "tesla"] = "adjoint",
    limit: float | None = None,
    flops: FlopTable | None = None,
    shape: Callable[[int], object] | None = None,
) -> Unrolled:
    """The gradient of a loss after N steps of training with respect to what the training was made with.

    For n = 0..N-1: `g_n = d loss(theta_n, n, leaves) / d theta`, `v_{n+1} = mu v_n + g_n`,
    `theta_{n+1} = theta_n - eta_n v_{n+1}`; `L = outer(theta_N) + sum_n also[n](theta_n)`. The gradient goes to the
    leaves (inputs, soft labels, logits ...), the step sizes and theta_0.

    - `adjoint`, exact: the steps are taken without a graph and theta_n is kept. Backwards, with `lambda = dL/dtheta_N`,
      `nu = 0`: `nu <- mu nu - eta_n lambda`; the graph of g_n is built again and gives `(h_theta, h_leaves)`, its
      product with nu; `d leaves += h_leaves`, `d eta_n = -<lambda, v_{n+1}>`, `lambda <- lambda + h_theta`, and the
      gradient of `also[n]` is added to lambda when n is reached. Memory is the graph of one step and N p numbers (2 N p
      with momentum and learned rates); one more forward and backward pass a step than the plain unroll.
    - `unroll`, exact: automatic differentiation through everything; memory grows with N times the graph of a step.
    - `tesla`, another direction: h_theta is left out, as if theta_n did not depend on earlier leaves. It is the
      gradient only for N = 1 or where g_n does not depend on theta; memory does not depend on N.

    Args:
        loss: `(theta, n, *leaves) -> scalar`, twice differentiable. A step may be taken twice: what is random in it must be
            a function of n.
        theta: The first parameters, of any shape: with (j, p) and a loss summed over j networks, all train at once.
        leaves: Tensors of any shape; gradients are made of those with `requires_grad`. They may have a history, which is
            not followed: go on with `torch.autograd.grad(leaf, ..., gradient)`.
        rates: The step size: a number, () for all steps, or (N,) one a step; a gradient is made when it requires one.
        outer: `theta_N -> scalar`.
        steps: N >= 0.
        momentum: mu of a heavy ball, in [0, 1).
        also: More losses, by the number of steps after which they are taken, 1..N-1.
        mode: See above.
        limit: A loss above it, or one that is not finite, gives no gradients: the result says `skipped`.
        flops: Where to count.
        shape: `n ->` what distinguishes the shapes of steps, for counting; all alike when None.

    Returns:
        The loss, the last parameters and the gradients.

    Raises:
        ModicumError: An argument makes no sense.
        TrainingError: The loss is not finite, and there is no limit.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> pull = lambda theta, n, x: 0.5 * (theta - x).square().sum()
        >>> made = unrolled_gradient(pull, torch.zeros(1), [x], 0.5, lambda theta: theta.sum(), steps=2)
        >>> float(made.loss), float(made.leaves[0])  # theta_2 = (1 - 0.5^2) x
        (2.25, 0.75)

    Reference:
        Cazenavette et al., Dataset Distillation by Matching Training Trajectories, 2022, arXiv 2203.11932; Deng and
        Russakovsky, Remember the Past, 2022, arXiv 2206.02916; Cui et al., Scaling Up Dataset Distillation to ImageNet-1K
        with Constant Memory, 2023, arXiv 2211.10586.
    """
    also = dict(also or {})
    sizes = _check(theta, rates, steps, momentum, also, mode)
    run = _Inner(loss, theta.detach(), leaves, sizes, {**also, steps: outer}, momentum, flops, shape, limit)
    return {"adjoint": run.adjoint, "unroll": run.unroll, "tesla": run.tesla}[mode]()


def _check(
    theta: Tensor, rates: Tensor | float, steps: int, momentum: float, also: Mapping[int, Outer], mode: str
) -> Tensor:
    checks: tuple[tuple[str, object, bool, str], ...] = (
        ("steps", steps, isinstance(steps, int) and steps >= 0, "an integer >= 0"),
        ("momentum", momentum, 0 <= momentum < 1, "a number in [0, 1)"),
        ("mode", mode, mode in MODES, "'adjoint', 'unroll' or 'tesla'"),
        ("also", sorted(also), all(0 < n < steps for n in also), f"steps from 1 to {steps - 1}"),
    )
    for name, value, right, expected in checks:
        if not right:
            raise ModicumError(f"unrolled_gradient {name}={value!r}; expected {expected}")
    sizes = rates if isinstance(rates, Tensor) else torch.tensor(rates, dtype=theta.dtype, device=theta.device)
    if sizes.shape not in ((), (steps,)):
        raise ModicumError(
            f"rates is {tuple(sizes.shape)}; expected a number, () or ({steps},), one for each of {steps} steps"
        )
    return sizes


class _Inner:
    """One inner training, forwards and backwards."""

    def __init__(
        self,
        loss: Inner,
        theta: Tensor,
        leaves: Sequence[Tensor],
        rates: Tensor,
        outers: dict[int, Outer],
        momentum: float,
        flops: FlopTable | None,
        shape: Callable[[int], object] | None,
        limit: float | None,
    ) -> None:
        self.loss, self.theta, self.rates, self.outers, self.momentum = loss, theta, rates, outers, momentum
        self.flops, self.shape, self.limit, self.steps = flops, shape or (lambda n: ""), limit, max(outers)
        self.wanted = [leaf.requires_grad for leaf in leaves]
        self.plain = [leaf.detach() for leaf in leaves]
        self.leaves = [leaf.detach().requires_grad_(want) for leaf, want in zip(leaves, self.wanted, strict=True)]
        self.eta = rates.detach().to(theta.device).expand(self.steps)
        self.parts: dict[int, Tensor] = {}
        self.pulls: dict[int, Tensor] = {}

    def adjoint(self) -> Unrolled:
        """Backwards through kept parameters, one graph at a time."""
        thetas, speeds = [self.theta], []
        theta, speed = self._meet(0, self.theta), None
        for n in range(self.steps):
            theta, speed = self._forward(n, theta, speed)
            thetas.append(theta)
            if self.momentum and self.rates.requires_grad:
                speeds.append(speed)
            self._meet(n + 1, theta)
        if self._diverged(thetas):
            return self._skipped(theta)
        made, slopes = self._zeros(), torch.zeros_like(self.eta)
        pull, push = torch.zeros_like(theta), torch.zeros_like(theta)
        for n in reversed(range(self.steps)):
            thetas.pop()
            if n + 1 in self.pulls:
                pull = pull + self.pulls[n + 1]
            push = push.mul_(self.momentum).addcmul_(self.eta[n], pull, value=-1)
            gradient, back = self._again(n, thetas[n], push, made)
            slopes[n] = -(pull * (speeds[n] if speeds else gradient)).sum()
            pull = pull + back
        return self._result(theta, made, slopes, pull + self.pulls.get(0, 0))

    def tesla(self) -> Unrolled:
        """Forwards twice; the pull on every step is known once the last parameters are."""
        theta, speed = self._meet(0, self.theta), None
        for n in range(self.steps):
            theta, speed = self._forward(n, theta, speed)
            self._meet(n + 1, theta)
        last = theta
        if self._diverged([last]):
            return self._skipped(last)
        made, slopes = self._zeros(), torch.zeros_like(self.eta)
        theta, speed = self.theta, None
        for n in range(self.steps):
            pull, push = torch.zeros_like(theta), torch.zeros_like(theta)
            for i, one in self.pulls.items():
                if i > n:
                    decay = self.momentum ** torch.arange(i - n, device=theta.device, dtype=theta.dtype)
                    pull, push = pull + one, push - (decay * self.eta[n:i]).sum() * one
            gradient, _ = self._again(n, theta, push, made)
            speed = gradient if speed is None else self.momentum * speed + gradient
            theta = theta - self.eta[n] * speed
            slopes[n] = -(pull * speed).sum()
        return self._result(last, made, slopes, sum(self.pulls.values(), torch.zeros_like(theta)))

    def unroll(self) -> Unrolled:
        """Everything in one graph."""
        first = self.theta.clone().requires_grad_()
        rates = self.rates.detach().to(first.device).requires_grad_()
        eta, theta, speed = rates.expand(self.steps), first, None
        total = torch.zeros((), dtype=theta.dtype, device=theta.device)
        with self._count("forward", "unroll"):
            for n in range(self.steps):
                loss = self.loss(theta, n, *self.leaves)
                (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
                speed = gradient if speed is None else self.momentum * speed + gradient
                theta = theta - eta[n] * speed
                if n + 1 in self.outers:
                    part = self.outers[n + 1](theta)
                    total, self.parts[n + 1] = total + part, part.detach()
            if not self.steps:
                total = self.outers[0](theta)
                self.parts[0] = total.detach()
        if self._diverged([theta.detach()]):
            return self._skipped(theta.detach())
        asked = [leaf for leaf in self.leaves if leaf.requires_grad]
        with self._count("backward", "unroll"):
            found = torch.autograd.grad(total, [first, rates, *asked], materialize_grads=True, allow_unused=True)
        self._charge("unroll")
        start, slopes, *rest = found
        made = self._zeros()
        for i, gradient in zip([i for i, want in enumerate(self.wanted) if want], rest, strict=True):
            made[i] = gradient
        return self._result(theta.detach(), made, slopes, start)

    def _forward(self, n: int, theta: Tensor, speed: Tensor | None) -> tuple[Tensor, Tensor]:
        here, key = theta.requires_grad_(), f"inner {self.shape(n)}"
        with self._count("forward", key):
            loss = self.loss(here, n, *self.plain)
        with self._count("backward", key):
            (gradient,) = torch.autograd.grad(loss, here)
        self._charge(key)
        theta.requires_grad_(False)
        speed = gradient if speed is None or not self.momentum else self.momentum * speed + gradient
        return theta - self.eta[n] * speed, speed

    def _again(self, n: int, theta: Tensor, push: Tensor, made: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """The gradient of a step, and what the push on it does to its parameters; what it does to leaves is added."""
        here, key = theta.requires_grad_(), f"inner again {self.shape(n)}"
        asked = [i for i, want in enumerate(self.wanted) if want]
        with self._count("forward", key):
            loss = self.loss(here, n, *self.leaves)
        with self._count("backward", key):
            (gradient,) = torch.autograd.grad(loss, here, create_graph=True)
            found: tuple[Tensor | None, ...] = (None,) * (1 + len(asked))
            if gradient.requires_grad:
                inputs = [here, *(self.leaves[i] for i in asked)]
                found = torch.autograd.grad(gradient, inputs, push, allow_unused=True)
        self._charge(key)
        theta.requires_grad_(False)
        for i, slope in zip(asked, found[1:], strict=True):
            total = made[i]
            if slope is not None and total is not None:
                total += slope
        back = found[0]
        return gradient.detach(), torch.zeros_like(theta) if back is None else back

    def _meet(self, n: int, theta: Tensor) -> Tensor:
        """Take the loss that is due after n steps."""
        if n in self.outers:
            here, key = theta.detach().requires_grad_(), f"outer {n}"
            with self._count("forward", key):
                part = self.outers[n](here)
            with self._count("backward", key):
                (self.pulls[n],) = torch.autograd.grad(part, here, materialize_grads=True, allow_unused=True)
            self._charge(key)
            self.parts[n] = part.detach()
        return theta

    def _diverged(self, thetas: list[Tensor]) -> bool:
        total = self._total()
        if self.limit is not None:
            return not float(total) <= self.limit
        if bool(total.isfinite()):
            return False
        bad = [n for n, theta in enumerate(thetas) if not bool(theta.isfinite().all())] if len(thetas) > 1 else []
        where = f"the parameters are not finite after step {bad[0]} of {self.steps}" if bad else "the parameters grew"
        raise TrainingError(
            f"inner training diverged: the loss is {float(total)}, {where}; the largest of the step sizes is "
            f"{float(self.eta.max()) if self.steps else 0.0:.4g}, use smaller ones or fewer steps"
        )

    def _total(self) -> Tensor:
        return torch.stack([*self.parts.values()]).sum()

    def _zeros(self) -> list[Tensor | None]:
        return [torch.zeros_like(p) if want else None for p, want in zip(self.plain, self.wanted, strict=True)]

    def _skipped(self, theta: Tensor) -> Unrolled:
        return Unrolled(self._total(), theta, tuple(None for _ in self.wanted), parts=self.parts, skipped=True)

    def _result(self, theta: Tensor, made: list[Tensor | None], slopes: Tensor, start: Tensor) -> Unrolled:
        rates = None
        if self.rates.requires_grad:
            rates = (slopes.sum() if slopes.ndim > self.rates.ndim else slopes).to(self.rates)
        return Unrolled(self._total(), theta.detach(), tuple(made), rates, start, self.parts)

    def _count(self, part: Literal["forward", "backward"], key: str) -> AbstractContextManager[Any]:
        if self.flops is None:
            return nullcontext()
        return self.flops.forward(key) if part == "forward" else self.flops.backward(key)

    def _charge(self, key: str) -> None:
        if self.flops is not None:
            self.flops.charge(key)
