import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modicum.selection  # noqa: F401
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.methods import make
from modicum.selection import DynamicLoss, DynamicReweighting, dynamic_weights
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

module = sys.modules["modicum.selection.dynamic_reweighting"]
STRATEGIES = ("lin-upper", "quadratic", "extremes", "linear", "uniform")


@pytest.mark.parametrize(
    "strategy, expected",
    [
        ("lin-upper", [0.1193, 0.2323, 0.3242, 0.3242]),
        ("quadratic", [0.1457, 0.3543, 0.3543, 0.1457]),
        ("extremes", [0.3304, 0.1696, 0.1696, 0.3304]),
        ("uniform", [0.25] * 4),
        ("linear", torch.tensor([0, 1 / 3, 2 / 3, 1]).softmax(0).tolist()),
    ],
)
def test_weights_of_the_paper(strategy, expected):
    weights = dynamic_weights(torch.arange(1.0, 5.0, dtype=torch.float64), strategy)
    np.testing.assert_allclose(weights, expected, atol=5e-5)
    assert weights.dtype == torch.float64


@settings(max_examples=50, deadline=None)
@given(
    losses=st.lists(st.floats(-5, 5), min_size=2, max_size=9).filter(lambda v: max(v) - min(v) > 0.01),
    scale=st.floats(0.5, 20),
    shift=st.floats(-5, 5),
    strategy=st.sampled_from(STRATEGIES),
    temperature=st.floats(0.3, 5),
)
def test_weights_sum_to_one_are_bounded_and_do_not_see_scale_or_shift(losses, scale, shift, strategy, temperature):
    values = np.array(losses)
    weights = dynamic_weights(values, strategy, temperature)
    assert weights.sum() == pytest.approx(1)
    assert weights.max() / weights.min() <= math.exp(1 / temperature) * (1 + 1e-9)
    np.testing.assert_allclose(dynamic_weights(scale * values + shift, strategy, temperature), weights, rtol=1e-6)


def test_equal_losses_one_sample_and_a_hot_temperature_give_equal_weights():
    assert dynamic_weights(torch.full((4,), 2.0)).tolist() == [0.25] * 4
    assert dynamic_weights(np.array([3.0])).tolist() == [1.0]
    for temperature in (1e9, math.inf):
        torch.testing.assert_close(dynamic_weights(torch.rand(5), "linear", temperature), torch.full((5,), 0.2))


def test_the_loss_of_doubles_is_exact_in_doubles():
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    expected = (dynamic_weights(losses, temperature=0.3) * losses).sum()
    assert float(DynamicLoss(temperature=0.3)(losses)) == pytest.approx(float(expected), rel=1e-14)


def test_no_gradient_flows_through_the_weights():
    theta = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    DynamicLoss()(theta * 2).backward()
    torch.testing.assert_close(theta.grad, 2 * dynamic_weights(theta.detach() * 2))


@pytest.mark.parametrize("sizes", [(12,), (6, 6), (3, 3, 3, 3), (5, 1, 6)])
@pytest.mark.parametrize("with_tokens", [False, True])
def test_devices_together_give_the_gradient_of_one(sizes, with_tokens, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    x, tokens = torch.randn(12, 3, generator=draw), torch.randint(1, 9, (12,), generator=draw)

    def gradient(parts):
        total = torch.zeros(3)
        for part in parts:
            theta = torch.ones(3, requires_grad=True)
            of_all = iter([(x @ theta.detach() - 1) ** 2, tokens.float()])
            found = lambda values, of_all=of_all, part=part: (next(of_all), int(part[0]), len(parts))  # noqa: E731
            monkeypatch.setattr(module, "everywhere", found)
            DynamicLoss("quadratic")((x[part] @ theta - 1) ** 2, tokens[part] if with_tokens else None).backward()
            total += theta.grad / len(parts)
        return total

    whole = torch.arange(12)
    torch.testing.assert_close(gradient(whole.split(list(sizes))), gradient([whole]))


PROCESS = """
import os, sys, torch, torch.distributed as dist
from modicum.selection import DynamicLoss
dist.init_process_group("gloo")
rank = dist.get_rank()
theta = torch.ones(3, requires_grad=True)
x = torch.arange(15.0).reshape(5, 3) / 7
mine = x[:3] if rank == 0 else x[3:]
DynamicLoss()((mine @ theta - 1) ** 2).backward()
dist.all_reduce(theta.grad)
print("gradient", (theta.grad / 2).tolist())
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_real_processes_with_unequal_shares():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS], env={**common, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    theta, x = torch.ones(3, requires_grad=True), torch.arange(15.0).reshape(5, 3) / 7
    DynamicLoss()((x @ theta - 1) ** 2).backward()
    for output in outputs:
        found = output.split("gradient", 1)[1].strip().strip("[]").split(",")
        np.testing.assert_allclose([float(v) for v in found], theta.grad, rtol=1e-5)


def test_tokens_with_equal_weights_are_the_mean_over_tokens():
    losses, tokens = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 2, 5])
    assert float(DynamicLoss("uniform")(losses, tokens)) == pytest.approx(25 / 8)
    with pytest.raises(DataError, match=r"tokens\[1\] is 0; expected at least one"):
        DynamicLoss()(losses, torch.tensor([1, 0, 2]))


def test_warm_up_counts_steps_of_training_and_is_saved():
    losses = torch.tensor([1.0, 3.0])
    criterion = DynamicLoss("linear", warmup=2)
    assert [round(float(criterion(losses)), 3) for _ in range(3)] == [2.0, 2.0, 2.462]
    other = DynamicLoss("linear", warmup=2)
    assert float(other.eval()(losses)) == 2.0
    assert other.steps == 0
    other.load_state_dict(criterion.state_dict())
    assert float(other(losses)) == pytest.approx(2.462, abs=1e-3)


def splits():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=draw)
    made = Dataset(x, x[:, :3].argmax(1), info=Info(classes=("a", "b", "c")))
    return Splits(made, made, made)


def trained(text, recipe):
    data = splits()
    sampler = make(text).sampler(data, recipe, Context()) if text else None
    return torch.cat([p.flatten() for p in fit(data.train, recipe, sampler=sampler).model.parameters()])


def test_the_method_trains_on_the_weighed_mean():
    recipe = Recipe(model="linear", epochs=3, batch_size=16, lr=0.1)
    plain = trained("", recipe)
    torch.testing.assert_close(trained("dynamic-reweighting(strategy='uniform', warmup=0)", recipe), plain)
    torch.testing.assert_close(trained("dynamic-reweighting(warmup=1)", recipe), plain)
    assert not torch.allclose(trained("dynamic-reweighting", recipe), plain, atol=1e-4)
    sampler = DynamicReweighting(warmup=0.5, warm_temperature=9.0).sampler(splits(), recipe, Context())
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert sampler.warmup == round(0.5 * 9)
    torch.testing.assert_close(sampler.weigh(0, losses), 4 * dynamic_weights(losses, temperature=9.0))
    torch.testing.assert_close(sampler.weigh(sampler.warmup, losses), 4 * dynamic_weights(losses))


@pytest.mark.parametrize(
    "losses, options, text",
    [
        (torch.tensor([1.0, math.inf]), {}, r"losses\[1\] is inf; expected finite"),
        (torch.tensor([]), {}, r"losses has shape \(0,\)"),
        (torch.ones(2, 2), {}, r"losses has shape \(2, 2\); expected \(m,\)"),
        (torch.ones(2), {"strategy": "upper"}, "strategy='upper'; expected 'lin-upper', 'quadratic'"),
        (torch.ones(2), {"temperature": 0}, "temperature=0; expected a number > 0"),
        (torch.ones(2), {"delta": math.nan}, "delta=nan; expected a number > 0"),
    ],
)
def test_errors_name_the_argument(losses, options, text):
    with pytest.raises(DataError, match=text):
        dynamic_weights(losses, **options)
    with pytest.raises(DataError):
        DynamicLoss(**options)(losses)


def test_options_out_of_range():
    with pytest.raises(DataError, match="warmup=-1; expected a number of steps >= 0"):
        DynamicLoss(warmup=-1)
    with pytest.raises(ModicumError, match="option strategy='upper'; expected 'lin-upper'"):
        make("dynamic-reweighting(strategy='upper')")
    with pytest.raises(ModicumError, match="option temperature=0; expected a number > 0"):
        make("dynamic-reweighting(temperature=0)")
