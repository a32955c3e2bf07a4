"""What was spent, on what: every pass, label, FLOP, second and byte, split into choosing and training."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

__all__ = ["Charge", "Ledger", "Phase", "epochs_elapsed"]

Phase = Literal["choose", "train", "evaluate"]
LARGEST = ("peak_bytes", "parameters", "bits")  # the total of these is the largest, not the sum


@dataclass(frozen=True)
class Charge:
    """One thing that was paid for.

    Args:
        phase: `choose` (measuring, reading, synthesizing, every evaluation used for a choice), `train` or `evaluate`.
        what: What it was, for people.
        samples: Samples passed through a model, each pass counted.
        labels: Distinct labels used.
        forward_flops: Floating point operations of forward passes; a multiply-add is two.
        backward_flops: The same for backward passes.
        extra_flops: Operations that are neither, such as distances.
        seconds: Wall-clock seconds.
        peak_bytes: Largest resident memory meanwhile.
        parameters: Parameters of the model.
        bits: Bits of the model's weights.
        bytes_sent: Bytes sent to other processes.
        uncounted: Names of the operations that have no FLOP formula.
        sources: Samples seen of each source of a mixture, and the size of the source.
    """

    phase: Phase
    what: str
    samples: int = 0
    labels: int = 0
    forward_flops: int = 0
    backward_flops: int = 0
    extra_flops: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    parameters: int = 0
    bits: int = 0
    bytes_sent: int = 0
    uncounted: tuple[str, ...] = ()
    sources: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        """Forward, backward and extra operations together."""
        return self.forward_flops + self.backward_flops + self.extra_flops

    def scaled(self, share: float) -> Charge:
        """The charge for the first share of this work, for a reader that needs only so much of it."""
        parts = {
            f: round(getattr(self, f) * share) for f in ("samples", "forward_flops", "backward_flops", "extra_flops")
        }
        return replace(self, seconds=self.seconds * share, **parts)


@dataclass
class Ledger:
    """A list of charges that adds up.

    Example:
        >>> ledger = Ledger()
        >>> ledger.add(Charge("train", "fit", samples=100, forward_flops=2_000, backward_flops=4_000))
        >>> ledger.add(Charge("choose", "traces", samples=50, forward_flops=1_000, backward_flops=2_000))
        >>> ledger.total().flops, ledger.total("choose").flops, (ledger + ledger).total().samples
        (9000, 3000, 300)
    """

    charges: list[Charge] = field(default_factory=list)

    def add(self, charge: Charge) -> None:
        """Enter one charge."""
        self.charges.append(charge)

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger([*self.charges, *other.charges])

    def total(self, phase: Phase | None = None) -> Charge:
        """Everything of a phase, or of all phases, as one charge; memory and sizes are the largest, the rest sums."""
        chosen = [c for c in self.charges if phase in (None, c.phase)]
        sums: dict[str, Any] = {}
        for f in fields(Charge):
            if f.name in ("phase", "what", "uncounted", "sources"):
                continue
            values = [getattr(c, f.name) for c in chosen]
            sums[f.name] = max(values, default=0) if f.name in LARGEST else sum(values)
        uncounted = tuple(sorted({name for c in chosen for name in c.uncounted}))
        return Charge(
            phase or "train", phase or "total", **sums, uncounted=uncounted, sources=_merge(c.sources for c in chosen)
        )

    def epochs(self) -> dict[str, float]:
        """Epochs elapsed of each source of a mixture: samples seen over the size of the source."""
        return {name: seen / size for name, (seen, size) in self.total().sources.items()}

    def as_phase(self, phase: Phase) -> Ledger:
        """The same charges booked under another phase: a training run used for choosing is a cost of choosing."""
        return Ledger([replace(c, phase=phase) for c in self.charges])

    def to_json(self) -> list[dict[str, Any]]:
        """Charges as plain dictionaries."""
        return [asdict(c) for c in self.charges]

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]]) -> Ledger:
        """The inverse of `to_json`."""
        charges = []
        for row in rows:
            sources = {k: (int(v[0]), int(v[1])) for k, v in row.get("sources", {}).items()}
            charges.append(Charge(**{**row, "uncounted": tuple(row.get("uncounted", ())), "sources": sources}))
        return cls(charges)

    @contextmanager
    def clock(self, phase: Phase, what: str, **counts: Any) -> Iterator[dict[str, Any]]:
        """Charge the seconds and peak memory of a block; counts may be added to the dictionary inside it.

        Example:
            >>> ledger = Ledger()
            >>> with ledger.clock("choose", "distances") as counts:
            ...     counts["extra_flops"] = 10
            >>> ledger.total("choose").extra_flops
            10
        """
        started = time.perf_counter()
        try:
            yield counts
        finally:
            seconds = time.perf_counter() - started
            self.add(Charge(phase, what, **{"seconds": seconds, "peak_bytes": peak_bytes(), **counts}))


def _merge(parts: Iterable[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    merged: dict[str, tuple[int, int]] = {}
    for part in parts:
        for name, (seen, size) in part.items():
            merged[name] = (merged.get(name, (0, 0))[0] + seen, size)
    return merged


def epochs_elapsed(sizes: Mapping[str, float], weights: Mapping[str, float], trained: float) -> dict[str, float]:
    """Epochs of each source of a mixture when `trained` units are drawn with these weights: w_s * trained / size_s.

    Args:
        sizes: Units (samples, tokens) that each source has.
        weights: Share of the training mix drawn from each source.
        trained: Units trained on in all.

    Returns:
        Epochs of each source.

    Example:
        >>> round(epochs_elapsed({"crawl": 410}, {"crawl": 0.6}, 300)["crawl"], 2)
        0.44

    Reference:
        Brown et al., Language Models are Few-Shot Learners, 2020, arXiv 2005.14165, table 2.2.
    """
    return {name: weights[name] * trained / size for name, size in sizes.items()}


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    try:  # what getrusage says begins with the memory of the process that started this one
        with open("/proc/self/status", encoding="ascii") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak) if sys.platform == "darwin" else int(peak) * 1024
