"""A pool of networks of spread ages, trained on the synthetic samples while these are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from modicum.distillation.synthesis import Synthesis

__all__ = ["Pool"]

BATCH = 500  # synthetic samples in one training step


class Pool:
    """Networks that are each trained for a while and then start anew, so that all ages are met.

    Network i of m starts with its counter at `i K / m`, is trained on the synthetic samples whenever it is asked, and is
    drawn anew after K steps: the samples are learned for networks at every moment of a short training. A network is a
    function of the seed, of its place and of how often it was drawn.

    Memory is that of m networks with two moments of Adam each.

    Args:
        run: Gives the networks, and is charged.
        size: Number of networks m.
        lifetime: Steps K after which a network is drawn anew.
        lr: Of Adam.

    Reference:
        Zhou, Nezhadarya and Ba, Dataset Distillation using Neural Feature Regression, 2022, arXiv 2206.00719.
    """

    def __init__(self, run: Synthesis, size: int, lifetime: int, lr: float) -> None:
        self.run, self.lifetime, self.lr = run, lifetime, lr
        self.ages = [i * lifetime // size for i in range(size)]
        self.drawn = [0] * size
        self.networks: list[nn.Module] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        for i in range(size):
            network = self._new(i)
            self.networks.append(network)
            self.optimizers.append(torch.optim.Adam(network.parameters(), lr))

    def _new(self, i: int) -> nn.Module:
        return self.run.network(self.run.random("pool", i, self.drawn[i]))

    def choose(self, random: torch.Generator) -> int:
        """The place of a network, each as probable."""
        return int(torch.randint(len(self.networks), (1,), generator=random))

    def train(self, i: int, inputs: Tensor, targets: Tensor, random: torch.Generator, steps: int = 1) -> None:
        """Train a network by squared error, then draw it anew when it is old.

        Args:
            i: Its place.
            inputs: (m, *shape) standardized samples; each step sees at most 500 of them.
            targets: (m, c).
            random: Chooses those.
            steps: How many.
        """
        network, optimizer, run = self.networks[i], self.optimizers[i], self.run
        inputs, targets = inputs.detach(), targets.detach()
        for _ in range(steps):
            x, y = inputs, targets
            if len(inputs) > BATCH:
                part = torch.randperm(len(inputs), generator=random)[:BATCH].to(inputs.device)
                x, y = inputs[part], targets[part]
            optimizer.zero_grad()
            with run.flops.forward("train"):
                loss = 0.5 * (network(x) - y).square().sum(1).mean()
            with run.flops.backward("train"):
                loss.backward()
            run.flops.charge("train")
            run.samples += len(x)
            optimizer.step()
        self.ages[i] += steps
        if self.ages[i] >= self.lifetime:
            self.ages[i], self.drawn[i] = 0, self.drawn[i] + 1
            self.networks[i] = network = self._new(i)
            self.optimizers[i] = torch.optim.Adam(network.parameters(), self.lr)

    def state_dict(self) -> dict[str, Any]:
        """Weights, moments, ages."""
        return {
            "networks": [network.state_dict() for network in self.networks],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "ages": self.ages,
            "drawn": self.drawn,
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        for i, (weights, moments) in enumerate(zip(state["networks"], state["optimizers"], strict=True)):
            self.networks[i].load_state_dict(weights)
            self.optimizers[i].load_state_dict(moments)
        self.ages, self.drawn = list(state["ages"]), list(state["drawn"])
