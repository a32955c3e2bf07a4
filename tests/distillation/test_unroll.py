"""The unrolled gradient: three ways to the same numbers, and where the third one differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modicum.distillation import Unrolled, flat_network, unrolled_gradient
from modicum.errors import ModicumError, TrainingError
from modicum.flops import FlopTable
from modicum.models.convnet import ConvNet

BENCH = Path(__file__).resolve().parents[2] / "bench" / "distillation" / "unroll.py"


def problem(seed: int = 0, size: float = 0.3) -> dict[str, Any]:
    """Batches of three of nine samples with soft labels, on a smooth network."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    _, call = flat_network(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double())
    x, y = normal(20, 6), torch.randint(3, (20,), generator=g)

    def loss(theta: Tensor, n: int, inputs: Tensor, logits: Tensor) -> Tensor:
        part = torch.arange(3) + 3 * (n % 3)
        return F.cross_entropy(call(theta, inputs[part]), logits[part].softmax(1))

    return {
        "loss": loss,
        "theta": 0.4 * normal(8 * 7 + 3 * 9),
        "leaves": [normal(9, 6).requires_grad_(), normal(9, 3).requires_grad_()],
        "rates": torch.tensor(size, dtype=torch.float64, requires_grad=True),
        "outer": lambda theta: F.cross_entropy(call(theta, x), y),
    }


def numbers(found: Unrolled) -> list[Tensor]:
    assert found.rates is not None
    assert found.start is not None
    return [found.loss, found.theta, found.rates, found.start, *(leaf for leaf in found.leaves if leaf is not None)]


def difference(a: Unrolled, b: Unrolled) -> float:
    return max(float((x - y).norm() / y.norm().clamp(min=1e-300)) for x, y in zip(numbers(a), numbers(b), strict=True))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20, 50])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_adjoint_is_the_gradient(steps: int, momentum: float) -> None:
    both = (unrolled_gradient(**problem(), steps=steps, momentum=momentum, mode=m) for m in ("adjoint", "unroll"))
    assert difference(*both) < 1e-10


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 99),
    steps=st.integers(2, 12),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    data=st.data(),
)
def test_with_a_rate_a_step_and_losses_on_the_way(seed: int, steps: int, momentum: float, data: Any) -> None:
    given_, on_the_way = problem(seed), data.draw(st.sets(st.integers(1, steps - 1), max_size=3))
    g = torch.Generator().manual_seed(seed)
    given_["rates"] = (0.3 * torch.rand(steps, generator=g, dtype=torch.float64)).requires_grad_()
    also = {n: lambda theta, n=n: (theta - n).square().mean() for n in on_the_way}
    both = [
        unrolled_gradient(**given_, steps=steps, momentum=momentum, also=also, mode=m) for m in ("adjoint", "unroll")
    ]
    assert difference(*both) < 1e-10
    assert set(both[0].parts) == {*on_the_way, steps}
    torch.testing.assert_close(both[0].loss, sum(both[0].parts.values()))


def test_against_finite_differences() -> None:
    given_ = problem()
    exact = unrolled_gradient(**given_, steps=4, momentum=0.9)
    for at, leaf in enumerate(given_["leaves"]):
        way = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(at), dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            moved = list(given_["leaves"])
            moved[at] = leaf.detach() + sign * 1e-6 * way
            ends.append(unrolled_gradient(**{**given_, "leaves": moved}, steps=4, momentum=0.9).loss)
        slope = exact.leaves[at]
        assert slope is not None
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, (slope * way).sum(), rtol=1e-6, atol=1e-9)


def test_one_step_of_a_linear_softmax_model_in_closed_form() -> None:
    g = torch.Generator().manual_seed(0)
    theta = torch.randn(4, 3, generator=g, dtype=torch.float64)
    x = torch.randn(5, 4, generator=g, dtype=torch.float64).requires_grad_()
    y = F.one_hot(torch.tensor([0, 1, 2, 0, 1]), 3).double()
    real, labels = torch.randn(7, 4, generator=g, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0])

    def outer(theta: Tensor) -> Tensor:
        return F.cross_entropy(real @ theta, labels)

    found = unrolled_gradient(lambda theta, n, x: F.cross_entropy(x @ theta, y), theta, [x], 0.7, outer, steps=1)
    after = theta - 0.7 * x.T @ ((x @ theta).softmax(1) - y) / 5
    (expected,) = torch.autograd.grad(outer(after), x)
    torch.testing.assert_close(found.leaves[0], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.theta, after.detach())


def test_steps_of_size_zero_say_nothing_of_the_inputs() -> None:
    found = unrolled_gradient(**{**problem(), "rates": 0.0}, steps=3)
    assert all(leaf is not None and not leaf.any() for leaf in found.leaves)


def test_no_steps() -> None:
    given_ = problem()
    for mode in ("adjoint", "unroll", "tesla"):
        found = unrolled_gradient(**given_, steps=0, mode=mode)
        assert torch.equal(found.theta, given_["theta"])
        assert all(leaf is not None and not leaf.any() for leaf in found.leaves)
        assert float(found.loss) == float(given_["outer"](given_["theta"]))


def test_many_networks_at_once_are_each_alone() -> None:
    g = torch.Generator().manual_seed(0)
    _, call = flat_network(nn.Linear(4, 3).double())
    many, thetas = torch.func.vmap(call, (0, None)), torch.randn(2, 15, generator=g, dtype=torch.float64)
    x = torch.randn(3, 4, generator=g, dtype=torch.float64).requires_grad_()
    y = torch.tensor([0, 1, 2])

    def entropy(outputs: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, -2), y.repeat(outputs.numel() // 9), reduction="sum") / 3

    together = unrolled_gradient(
        lambda theta, n, x: entropy(many(theta, x)), thetas, [x], 0.5, lambda t: t.square().sum(), steps=3
    )
    alone = [
        unrolled_gradient(lambda t, n, x: entropy(call(t, x)), theta, [x], 0.5, lambda t: t.square().sum(), steps=3)
        for theta in thetas
    ]
    torch.testing.assert_close(together.theta, torch.stack([a.theta for a in alone]))
    torch.testing.assert_close(together.leaves[0], sum(a.leaves[0] for a in alone if a.leaves[0] is not None))


class TestTesla:
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_is_exact_for_one_step(self, momentum: float) -> None:
        both = [unrolled_gradient(**problem(), steps=1, momentum=momentum, mode=m) for m in ("tesla", "adjoint")]
        for one, other in zip(numbers(both[0])[:3] + list(both[0].leaves), numbers(both[1])[:3] + list(both[1].leaves)):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_is_exact_where_the_gradient_does_not_depend_on_the_parameters(self, momentum: float) -> None:
        g = torch.Generator().manual_seed(0)
        x = torch.randn(6, generator=g, dtype=torch.float64).requires_grad_()
        theta, target = torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
        rates = torch.rand(7, generator=g, dtype=torch.float64).requires_grad_()

        def loss(theta: Tensor, n: int, x: Tensor) -> Tensor:
            return (theta * torch.sin(x + n)).sum()

        both = [
            unrolled_gradient(
                loss, theta, [x], rates, lambda t: (t - target).square().sum(), steps=7, momentum=momentum, mode=mode,
                also={3: lambda t: t.pow(3).sum()},
            )
            for mode in ("tesla", "unroll")
        ]  # fmt: skip
        assert difference(*both) < 1e-12

    def test_turns_away_from_the_gradient_as_the_steps_grow(self) -> None:
        cosines = []
        for steps in (1, 2, 5, 20, 50):
            a, b = (unrolled_gradient(**problem(), steps=steps, mode=mode).leaves[0] for mode in ("tesla", "adjoint"))
            assert a is not None
            assert b is not None
            cosines.append(float(F.cosine_similarity(a.flatten(), b.flatten(), 0)))
        assert cosines == sorted(cosines, reverse=True)
        assert cosines[0] > 1 - 1e-12
        assert 0.5 < cosines[-1] < 0.95


def test_nothing_that_is_given_is_changed() -> None:
    given_ = problem()
    before = [t.detach().clone() for t in (given_["theta"], given_["rates"], *given_["leaves"])]
    for mode in ("adjoint", "unroll", "tesla"):
        unrolled_gradient(**given_, steps=3, mode=mode)
    after = (given_["theta"], given_["rates"], *given_["leaves"])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(leaf.grad is None for leaf in given_["leaves"])
    assert not given_["theta"].requires_grad


def test_only_what_is_asked_for() -> None:
    given_ = problem()
    given_["leaves"][1] = given_["leaves"][1].detach()
    given_["rates"] = 0.3
    for mode in ("adjoint", "unroll", "tesla"):
        found = unrolled_gradient(**given_, steps=3, mode=mode)
        assert found.leaves[0] is not None
        assert found.leaves[1] is None
        assert found.rates is None


def test_what_diverges_says_where() -> None:
    given_ = {**problem(), "loss": lambda theta, n, x, y: theta.pow(4).sum(), "rates": 100.0}
    message = r"inner training diverged: the loss is nan, the parameters are not finite after step \d of 20; .* 100"
    with pytest.raises(TrainingError, match=message):
        unrolled_gradient(**given_, steps=20)
    with pytest.raises(TrainingError, match="inner training diverged"):
        unrolled_gradient(**given_, steps=20, mode="tesla")
    found = unrolled_gradient(**given_, steps=20, limit=1.0)
    assert found.skipped
    assert found.leaves == (None, None)


@pytest.mark.parametrize("mode", ["adjoint", "unroll", "tesla"])
def test_a_loss_above_the_limit_gives_no_gradients(mode: Any) -> None:
    given_ = problem()
    loss = float(unrolled_gradient(**given_, steps=2).loss)
    assert not unrolled_gradient(**given_, steps=2, mode=mode, limit=loss + 1e-6).skipped
    assert unrolled_gradient(**given_, steps=2, mode=mode, limit=loss - 1e-6).skipped


def test_every_pass_is_counted() -> None:
    table, given_ = FlopTable(), problem()
    unrolled_gradient(**given_, steps=4, flops=table)
    layers = 6 * 8 + 8 * 3
    # a forward pass of 3 samples in each of 4 steps, twice, and one of 20 for the outer loss
    assert table.forward_flops == 2 * layers * (2 * 4 * 3 + 20)
    assert table.backward_flops > table.forward_flops
    assert table.uncounted == ()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"steps": -1}, r"steps=-1; expected an integer >= 0"),
        ({"momentum": 1.0}, r"momentum=1.0; expected a number in \[0, 1\)"),
        ({"mode": "exact"}, "mode='exact'; expected 'adjoint', 'unroll' or 'tesla'"),
        ({"also": {3: torch.sum}}, r"also=\[3\]; expected steps from 1 to 2"),
        ({"rates": torch.ones(2)}, r"rates is \(2,\); expected a number, \(\) or \(3,\), one for each of 3 steps"),
    ],
)
def test_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        unrolled_gradient(**{**problem(), "steps": 3, **wrong})


class TestFlatNetwork:
    def test_is_the_network(self) -> None:
        network, x = ConvNet((1, 8, 8), 3, width=4), torch.rand(5, 1, 8, 8)
        theta, call = flat_network(network)
        assert len(theta) == sum(p.numel() for p in network.parameters())
        torch.testing.assert_close(call(theta, x), network(x))
        assert not torch.equal(call(theta + 1, x), network(x))
        many = torch.func.vmap(call, (0, None))(torch.stack([theta, theta + 1]), x)
        torch.testing.assert_close(many[1], call(theta + 1, x))

    def test_refuses_running_statistics(self) -> None:
        network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        with pytest.raises(
            ModicumError, match=r"layer '1' is a BatchNorm1d with running statistics, .* network\.eval\(\)"
        ):
            flat_network(network)
        flat_network(network.eval())


@pytest.mark.slow
def test_fifty_steps_need_at_most_twice_the_memory_of_one() -> None:
    def peak(steps: int) -> int:
        words = [sys.executable, str(BENCH), "--worker", "adjoint", "--steps", str(steps), "--threads", "1"]
        everything = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        words += ["--width", "32", "--batch", "20"]
        out = subprocess.run(words, check=True, capture_output=True, text=True, env=everything).stdout
        return int(json.loads(out.splitlines()[-1])["bytes"])

    assert peak(50) < 2 * peak(1)
