"""Two processes under torchrun give the answer of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import TrainingError
from modicum.store import Store
from modicum.training.distributed import Group, join
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

CASES: dict[str, dict[str, Any]] = {
    "sgd, odd batches, last one of a single sample": {"batch_size": 15, "epochs": 3},
    "adamw, clipped, averaged, smoothed": {
        "batch_size": 16, "epochs": 2, "optimizer": "adamw", "lr": 1e-3, "clip": 0.5, "ema": 0.9, "label_smoothing": 0.1,
    },
    "weights": {"batch_size": 32, "steps": 7, "schedule": "one-cycle"},
}  # fmt: skip


def data(weighted: bool) -> Dataset:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(61, 12, generator=rng)
    targets = (inputs[:, :3] + 0.5 * torch.randn(61, 3, generator=rng)).argmax(1)
    weights = torch.rand(61, generator=rng) if weighted else None
    return Dataset(inputs, targets, weights=weights, info=Info(classes=("a", "b", "c")))


class Watcher:
    """A recorder that keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def record(self, epoch: int, indices: Tensor, outputs: Tensor, losses: Tensor) -> None:
        self.seen.append(torch.cat([indices[:, None].float(), losses[:, None], outputs], 1))

    def end_epoch(self, epoch: int, model: nn.Module) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.seen = state["seen"]


def train(case: str, store: Store | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    watcher = Watcher()
    ctx = Context(store=store, checkpoint_seconds=0, seed=3)
    done = fit(data(case == "weights"), Recipe(model="mlp(hidden=16)", **CASES[case]), ctx, recorder=watcher)
    total = done.ledger.total()
    numbers = {name: getattr(total, name) for name in ("samples", "forward_flops", "backward_flops", "bytes_sent")}
    numbers["history"] = {k: v for k, v in done.history.items() if k != "seconds"}
    numbers["parameters"] = total.parameters
    return {**done.model.state_dict(), "seen": torch.cat(watcher.seen)}, numbers


def main(folder: str) -> None:
    """What each process of the test runs."""
    rank = int(os.environ["RANK"])
    for number, case in enumerate(CASES):
        weights, numbers = train(case, Store(Path(folder) / f"run{number}"))
        out = Store(Path(folder) / f"out{number}-{rank}")
        out.write_tensors("weights", weights)
        out.write_json("numbers", numbers)


@pytest.mark.slow
def test_two_processes_give_the_answer_of_one(tmp_path: Path) -> None:
    # the middle case resumes what one process began
    case = list(CASES)[1]
    with pytest.MonkeyPatch.context() as patch:
        left = [5]

        def stop(*_: Any, real: Any = Watcher.record) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            real(*_)

        patch.setattr(Watcher, "record", stop)
        with pytest.raises(KeyboardInterrupt):
            train(case, Store(tmp_path / "run1"))
    assert Store(tmp_path / "run1").has("fit.state")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        __file__,
        str(tmp_path),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""
    for number, case in enumerate(CASES):
        weights, numbers = train(case)
        for rank in (0, 1):
            out = Store(tmp_path / f"out{number}-{rank}")
            got, counted = out.read_tensors("weights"), json.loads(out.read("numbers"))
            for name, value in weights.items():
                assert torch.allclose(got[name], value, atol=1e-5, rtol=0), (case, rank, name)
            for name in ("samples", "forward_flops", "backward_flops"):
                assert counted[name] == numbers[name]
            assert counted["history"]["loss"] == pytest.approx(numbers["history"]["loss"], abs=1e-5)
            # a ring of two sends half of twice what it reduces: gradients, losses and outputs
            steps = -(-numbers["samples"] // 61) * -(-61 // CASES[case]["batch_size"])
            steps = CASES[case].get("steps", steps)
            if number != 1:  # the resumed one sent less
                assert counted["bytes_sent"] == 4 * (steps * numbers["parameters"] + numbers["samples"] * 4)
    assert not list(tmp_path.glob("*-1/fit.state"))


def test_alone_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert join() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert join() is None


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_over_processes_is_the_mean_over_the_batch(world: int, size: int, weighted: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    losses, weights = torch.rand(size, generator=rng), torch.rand(size, generator=rng)
    parts, total = [], torch.zeros(())
    for rank in range(world):
        group = Group(rank, world, torch.device("cpu"))
        group.gradient_bytes = 8
        part = group.part(size)
        parts += part.tolist() if rank < size else []
        total += group.loss(losses[part], weights[part] if weighted else None, size) / world
    assert sorted(parts) == list(range(size))
    assert torch.allclose(total, (losses * weights).mean() if weighted else losses.mean())


def test_batch_normalization_is_refused() -> None:
    with pytest.raises(TrainingError, match="has batch normalization, whose statistics would be those of one process"):
        Group(0, 2, torch.device("cpu")).wrap(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_only_the_first_process_writes_and_shows(tmp_path: Path) -> None:
    ctx = Context(store=Store(tmp_path), show=True)
    first, second = (Group(rank, 2, torch.device("cpu")).context(ctx) for rank in (0, 1))
    assert first is ctx
    assert (second.store, second.show) == (None, False)


if __name__ == "__main__":
    main(sys.argv[1])
