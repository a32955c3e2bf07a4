"""Losses reach the samplers that learn from them, from several processes and after an interruption too."""

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
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError
from modicum.methods import make
from modicum.selection import HardBatchSampler, InfoBatchSampler
from modicum.store import Store
from modicum.training.fit import fit
from modicum.training.observed import Observed, everywhere, of_all
from modicum.training.recipe import Recipe

N, EPOCHS = 61, 5
METHODS = ("infobatch(ratio=0.4)", "hard-samples(delta=0.4, drop_last=False)", "dynamic-reweighting(temperature=0.3)")
RECIPE = Recipe(model="mlp(hidden=16)", epochs=EPOCHS, batch_size=10, lr=0.1)


def data() -> Splits:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(N, 12, generator=rng)
    targets = (inputs[:, :3] + 0.5 * torch.randn(N, 3, generator=rng)).argmax(1)
    made = Dataset(inputs, targets, info=Info(classes=("a", "b", "c")))
    return Splits(made, made, made)


class Stop:
    """A recorder that ends the run before so many updates more."""

    def __init__(self, after: int) -> None:
        self.left = after

    def record(self, *_: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def end_epoch(self, *_: Any) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


def fitted(method: str, ctx: Context | None = None, recorder: Any = None) -> tuple[Tensor, list[float]]:
    splits, ctx = data(), ctx or Context(seed=3)
    done = fit(splits.train, RECIPE, ctx, sampler=make(method).sampler(splits, RECIPE, ctx), recorder=recorder)
    return torch.cat([p.detach().flatten() for p in done.model.parameters()]), done.history["samples"]


def learned(sampler: Any, indices: Tensor, losses: Tensor) -> Any:
    sampler.observe(indices, losses)
    return sampler.order(1)


def alone_in_a_loop(kind: str, rank: int = 0, world: int = 1) -> tuple[Tensor, list[list[int]]]:
    """Weights, and the positions that this process visits in each step, with a loop of one's own at 12 samples a step."""
    train = data().train
    rows = TensorDataset(train.inputs, train.targets, torch.arange(N))
    model: nn.Module = nn.Linear(12, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    network = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    sampler: Any
    if kind == "infobatch":
        sampler = InfoBatchSampler(N, EPOCHS, rank=rank, world=world)
        loader, rounds = DataLoader(rows, batch_size=12 // world, sampler=sampler), EPOCHS
    else:
        sampler = HardBatchSampler(N, 12, EPOCHS, rank=rank, world=world)
        loader, rounds = DataLoader(rows, batch_sampler=sampler), sampler.rounds
    visits = []
    for number in range(rounds):
        sampler.set_epoch(number)
        count = len(visits)
        for x, y, at in loader:
            loss = sampler.update(at, F.cross_entropy(network(x), y, reduction="none"))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            visits.append(at.tolist())
        assert len(visits) - count == len(loader)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), visits


def main(folder: str) -> None:
    """What each of two processes runs."""
    rank = int(os.environ["RANK"])
    for number, method in enumerate(METHODS):
        weights, samples = fitted(method)
        out = Store(Path(folder) / f"fit{number}-{rank}")
        out.write_tensors("weights", {"all": weights})
        out.write_json("samples", samples)
    for kind in ("infobatch", "hard"):
        weights, visits = alone_in_a_loop(kind, rank, 2)
        out = Store(Path(folder) / f"{kind}-{rank}")
        out.write_tensors("weights", {"all": weights})
        out.write_json("visits", visits)


@pytest.mark.slow
def test_two_processes_give_the_answer_of_one(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for number, method in enumerate(METHODS):
        weights, samples = fitted(method)
        for rank in (0, 1):
            out = Store(tmp_path / f"fit{number}-{rank}")
            torch.testing.assert_close(out.read_tensors("weights")["all"], weights, atol=1e-5, rtol=0)
            assert json.loads(out.read("samples")) == samples
    for kind in ("infobatch", "hard"):
        weights, visits = alone_in_a_loop(kind)
        stores = [Store(tmp_path / f"{kind}-{rank}") for rank in (0, 1)]
        found = [store.read_tensors("weights")["all"] for store in stores]
        halves = [json.loads(store.read("visits")) for store in stores]
        assert torch.equal(*found)
        if kind == "infobatch":  # an odd number is filled up, so that only the first epoch is to the letter
            visits = visits[: -(-N // 12)]
            assert len(halves[0]) == len(halves[1]) < EPOCHS * len(visits)
        else:
            torch.testing.assert_close(found[0], weights, atol=1e-5, rtol=0)
            assert len(visits) == len(halves[0]) == len(halves[1])
        for whole, *parts in zip(visits, *halves):
            assert {*parts[0], *parts[1]} - {visits[0][0]} == {*whole} - {visits[0][0]}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stops", [(1,), (9, 4), (13, 1)])
def test_interrupted_anywhere_equals_uninterrupted(method: str, stops: tuple[int, ...], tmp_path: Path) -> None:
    ctx = Context(store=Store(tmp_path), checkpoint_seconds=0, seed=3)
    assert ctx.store is not None
    with ctx.store.locked():
        for after in stops:
            with pytest.raises(KeyboardInterrupt):
                fitted(method, ctx, Stop(after))
        weights, samples = fitted(method, ctx, Stop(10**9))
    expected, visited = fitted(method)
    assert torch.equal(weights, expected)
    assert samples == visited


@pytest.mark.parametrize(
    "first, second",
    [
        ("infobatch(ratio=0.4)", "infobatch(ratio=0.5)"),
        ("hard-samples(delta=0.4)", "hard-samples(delta=0.4, drop_last=False)"),
        ("dynamic-reweighting(strategy='linear')", "dynamic-reweighting(strategy='quadratic')"),
    ],
)
def test_a_checkpoint_made_with_other_options_is_not_continued(first: str, second: str, tmp_path: Path) -> None:
    ctx = Context(store=Store(tmp_path), checkpoint_seconds=0, seed=3)
    assert ctx.store is not None
    with ctx.store.locked():
        with pytest.raises(KeyboardInterrupt):
            fitted(first, ctx, Stop(9))
        weights, _ = fitted(second, ctx, Stop(10**9))
    assert torch.equal(weights, fitted(second)[0])


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("n", [1, 4, 30])
def test_processes_share_an_epoch_in_equal_parts(world: int, n: int) -> None:
    whole = list(InfoBatchSampler(n, 8))
    samplers = [InfoBatchSampler(n, 8, rank=rank, world=world) for rank in range(world)]
    parts = [list(sampler) for sampler in samplers]
    assert {len(part) for part in parts} == {len(sampler) for sampler in samplers} == {-(-n // world)}
    together = [position for step in zip(*parts) for position in step]
    assert together[:n] == whole
    assert together[n:] == [whole[i % n] for i in range(n, len(together))]


def test_processes_share_every_hard_batch() -> None:
    whole = list(HardBatchSampler(50, 8, drop_last=False))
    parts = [list(HardBatchSampler(50, 8, drop_last=False, rank=rank, world=2)) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert [batch[0::2], batch[1::2]] == shares
    with pytest.raises(DataError, match=r"world=3 processes for a batch of 2 samples; expected at least one"):
        HardBatchSampler(50, 8, drop_last=False, world=3)


@pytest.mark.parametrize("rank, world", [(2, 2), (-1, 2), (0, 0)])
def test_a_process_that_is_not_there(rank: int, world: int) -> None:
    for make_ in (lambda: InfoBatchSampler(9, 8, rank=rank, world=world), lambda: HardBatchSampler(9, 2, world=world, rank=rank)):  # fmt: skip
        with pytest.raises(DataError, match=rf"rank={rank}; expected 0 to {world - 1}, the processes of world={world}"):
            make_()


@pytest.mark.parametrize(
    "indices, text",
    [
        ([3, 99], "indices has 99; expected positions from 0 to 9, as there are 10 samples: the place of a sample"),
        ([-1, 2], "indices has -1; expected positions from 0 to 9"),
        ([0.0, 1.0], r"indices has dtype torch.float32; expected the positions"),
        ([True, False], r"indices has dtype torch.bool; expected the positions"),
        ([1, 2, 3], r"losses has shape \(2,\) for indices of shape \(3,\).*use reduction='none'"),
    ],
)
def test_positions_that_no_sample_has(indices: list[float], text: str) -> None:
    at, losses = torch.tensor(indices), torch.ones(2)
    for sampler in (InfoBatchSampler(10, 8), HardBatchSampler(10, 2)):
        with pytest.raises(DataError, match=text):
            sampler.update(at, losses)
        with pytest.raises(DataError, match=text):
            learned(sampler, at, losses)


def test_observed_keeps_the_order_and_gives_once() -> None:
    seen, losses = Observed(5), torch.tensor([1.0, 2.0], requires_grad=True)
    seen.add(torch.tensor([1, 4]), losses)
    seen.add(torch.tensor([1], dtype=torch.int32), torch.tensor([7.0]))
    with torch.no_grad():
        losses += 1  # what was seen stays what it was
    taken = seen.take()
    assert taken is not None
    assert (taken[0].tolist(), taken[1].tolist()) == ([1, 4, 1], [1, 2, 7])
    assert not taken[1].requires_grad
    assert seen.take() is None


def test_one_process_is_everything() -> None:
    values = torch.rand(3)
    assert everywhere(values)[0] is values
    assert of_all(torch.arange(3), values, 3)[2] == pytest.approx(1 / 3)


if __name__ == "__main__":
    main(sys.argv[1])
