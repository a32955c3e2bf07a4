"""Where work runs and what it is charged to: passed explicitly as `ctx`, never global."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from modicum.errors import MissingExtraError, ModicumError
from modicum.ledger import Ledger
from modicum.store import Stateful, Store

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Context", "Engine", "LocalEngine", "RayEngine", "home"]

_BARS: ContextVar[Progress | None] = ContextVar("bars", default=None)  # one display for nested work
Job = TypeVar("Job")
Result = TypeVar("Result")


def home() -> Path:
    """The folder of runs and of the cache: `$MODICUM_HOME`, or `runs` in the working directory."""
    return Path(os.environ.get("MODICUM_HOME", "runs"))


class Engine(Protocol):
    """Runs many independent jobs; results come in the order of the jobs."""

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]: ...


class LocalEngine:
    """One job after another in this process."""

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield `function(job)` for each job."""
        return map(function, jobs)


class RayEngine:
    """Jobs on a Ray cluster.

    Args:
        address: Of the cluster, or `local`.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray", "a cluster engine") from None
        self._ray: Any = ray
        if not ray.is_initialized():
            ray.init(address=address)

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield results in the order of the jobs, while later ones run."""
        remote = self._ray.remote(function)
        yield from (self._ray.get(future) for future in [remote.remote(job) for job in jobs])


@dataclass(frozen=True)
class Context:
    """Device, precision, seed, ledger, store, engine and progress of a piece of work.

    Args:
        device: `cpu`, `cuda`, `mps`, or `auto` for the first accelerator there is.
        seed: Every generator is made from it and from the name of a step.
        ledger: What the work is charged to.
        store: Where checkpoints and results go; without one nothing is saved.
        engine: What runs many independent jobs.
        cache: Folder of the measurements, by content; without one nothing is shared between commands.
        checkpoint_seconds: Seconds between two checkpoints of long work.
        show: Whether to show progress bars.
        deadline: The moment, in `time.monotonic()` seconds, after which work that has an answer at any time gives it.
        watch: Is told the name, the steps done, their total and the seconds since it began, once a step of such work.

    Example:
        >>> ctx = Context(seed=1)
        >>> bool((torch.rand(2, generator=ctx.generator("a")) == torch.rand(2, generator=ctx.generator("a"))).all())
        True
    """

    device: str = "cpu"
    seed: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    store: Store | None = None
    engine: Engine = field(default_factory=LocalEngine)
    cache: Path | None = None
    checkpoint_seconds: float = 30.0
    show: bool = False
    deadline: float | None = None
    watch: Callable[[str, int, int, float], None] | None = None

    def __post_init__(self) -> None:
        if self.device == "auto":
            found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
            object.__setattr__(self, "device", found)
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            kind = ""
        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not there.get(kind, False):
            raise ModicumError(
                f"device={self.device!r} is not there; expected one of {[k for k, v in there.items() if v]}"
            )

    def generator(self, *names: object) -> torch.Generator:
        """A CPU generator for a named step: the same seed and name give the same numbers on every device."""
        return generator(self.seed, *names)

    def with_(self, **changes: Any) -> Context:
        """The same context with some fields changed."""
        return replace(self, **changes)

    @contextmanager
    def progress(self, what: str, total: float) -> Iterator[Callable[[float], None]]:
        """A progress bar with the time left; call what it gives with the number of steps done so far."""
        if not self.show:
            yield lambda done: None
            return
        bars = _BARS.get() or _bars()
        token = _BARS.set(bars)
        with bars if not bars.live.is_started else nullcontext():
            task = bars.add_task(what, total=total)
            try:
                yield lambda done: bars.update(task, completed=done)
            finally:
                bars.remove_task(task)
                _BARS.reset(token)

    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def loop(
        self, name: str, total: int, state: Sequence[Stateful], work: object = None, anytime: bool = False
    ) -> Iterator[int]:
        """Steps of long work, resumable when there is a store (see `Store.loop`), with a progress bar.

        Args:
            name: Of the work.
            total: Number of steps.
            state: What the steps change.
            work: A description of the work.
            anytime: Whether the work has an answer after every step: then it ends when the deadline has passed, with its
                state saved, and the same work goes on from there another time.
        """
        stop = self.late if anytime else None
        steps: Iterator[int]
        if self.store is not None:
            steps = self.store.loop(name, total, state, self.checkpoint_seconds, work, stop)
        else:
            steps = _until(total, stop)
        if anytime and self.watch is not None:
            steps = _watched(steps, name, total, self.watch)
        if not self.show:
            yield from steps
            return
        with self.progress(name, total) as done:
            shown = time.monotonic()
            for step in steps:
                yield step
                if time.monotonic() - shown > 0.2:
                    done(step + 1)
                    shown = time.monotonic()


def _until(total: int, stop: Callable[[], bool] | None) -> Iterator[int]:
    for step in range(total):
        yield step
        if stop is not None and stop():
            return


def _watched(
    steps: Iterator[int], name: str, total: int, watch: Callable[[str, int, int, float], None]
) -> Iterator[int]:
    started = time.monotonic()
    for step in steps:
        yield step
        watch(name, step + 1, total, time.monotonic() - started)


def _bars() -> Progress:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator that is a pure function of a seed and names.

    Example:
        >>> int(torch.randint(100, (1,), generator=generator(0, "x"))) == int(torch.randint(100, (1,), generator=generator(0, "x")))
        True
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(number)
