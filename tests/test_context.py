"""Explicit context: generators, devices, engines, resumable loops with progress."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modicum.context import Context, LocalEngine, RayEngine, generator, home
from modicum.errors import MissingExtraError, ModicumError
from modicum.store import Store


def draw(rng: torch.Generator) -> list[int]:
    return torch.randint(1 << 30, (4,), generator=rng).tolist()  # type: ignore[no-any-return]


def test_generators_are_pure_functions_of_seed_and_names() -> None:
    assert draw(generator(0, "order", 3)) == draw(generator(0, "order", 3)) == draw(Context().generator("order", 3))
    cases = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a1"), (0, "a", "1", ""), (0,), (0, "")]
    assert len({tuple(draw(generator(*case))) for case in cases}) == len(cases)
    assert draw(generator(0, "golden")) == [73499549, 963657891, 370466703, 804363988]


def test_no_global_state_is_read_or_set() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    first = draw(generator(0, "x"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    torch.manual_seed(99)
    assert draw(generator(0, "x")) == first


@pytest.mark.parametrize("device", ["cuda:99x", "toaster", ""])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(ModicumError, match=rf"device={device!r} is not there; expected one of \['cpu'"):
        Context(device=device)


def test_auto_device_is_there() -> None:
    assert torch.zeros(1, device=Context(device="auto").device).device.type in ("cpu", "cuda", "mps")


def test_contexts_do_not_share_ledgers_unless_derived() -> None:
    first, second = Context(), Context()
    assert first.ledger is not second.ledger
    assert first.with_(seed=3).ledger is first.ledger
    assert first.with_(seed=3).seed == 3
    assert first.seed == 0


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODICUM_HOME", os.sep + "somewhere")
    assert home() == Path(os.sep + "somewhere")
    monkeypatch.delenv("MODICUM_HOME")
    assert home() == Path("runs")


def test_local_engine_is_lazy_and_in_order() -> None:
    seen: list[int] = []

    def square(x: int) -> int:
        seen.append(x)
        return x * x

    results = LocalEngine().map(square, iter(range(5)))
    assert next(results) == 0
    assert seen == [0]
    assert list(results) == [1, 4, 9, 16]


def test_ray_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        MissingExtraError, match=r"a cluster engine needs the package 'ray': pip install 'modicum\[ray\]'"
    ):
        RayEngine("local")


class Counter:
    def __init__(self) -> None:
        self.total = 0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.total = state["total"]


@pytest.mark.parametrize("show", [False, True])
def test_loop_with_a_store_resumes_and_without_one_starts_again(
    tmp_path: Path, show: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for store, again in ((None, range(10)), (Store(tmp_path), range(4, 10))):
        ctx = Context(store=store, checkpoint_seconds=0, show=show)
        counter = Counter()
        for step in ctx.loop("sum", 10, [counter], work=1):
            if step == 4:
                break
            counter.total += step
        counter, steps = Counter(), []
        for step in ctx.loop("sum", 10, [counter], work=1):
            counter.total += step
            steps.append(step)
        assert steps == list(again)
        assert counter.total == 45
    assert capsys.readouterr().out == ""


def test_progress_nests() -> None:
    ctx = Context(show=True)
    with ctx.progress("outer", 2) as outer:
        for step in range(2):
            with ctx.progress("inner", 3) as inner:
                inner(3)
            outer(step + 1)
    with Context().progress("hidden", 1) as done:
        done(1)


def test_work_with_an_answer_at_any_time_ends_at_the_deadline_and_goes_on(tmp_path: Path) -> None:
    store, steps = Store(tmp_path), torch.Generator().manual_seed(0)
    late = Context(store=store, deadline=time.monotonic())
    assert list(late.loop("work", 5, [steps], anytime=True)) == [0]
    assert list(late.loop("work", 5, [steps])) == [1, 2, 3, 4]
    assert list(late.with_(store=None).loop("work", 5, [steps], anytime=True)) == [0]
    assert list(Context(deadline=time.monotonic()).loop("work", 3, [steps])) == [0, 1, 2]


def test_such_work_tells_how_far_it_is() -> None:
    seen: list[tuple[str, int, int]] = []
    ctx = Context(watch=lambda name, done, total, seconds: seen.append((name, done, total)))
    list(ctx.loop("work", 2, [], anytime=True))
    list(ctx.loop("other", 2, []))
    assert seen == [("work", 1, 2), ("work", 2, 2)]
