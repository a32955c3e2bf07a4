"""Answers that were costly to get: kept by subset, on disk too, with what each cost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modicum.context import Context
from modicum.errors import StoreError
from modicum.ledger import Ledger
from modicum.measurement.learners.problem import packed
from modicum.spec import content_key
from modicum.store import Store

__all__ = ["Answer", "Answers", "Payer"]

FILE = "answers.safetensors"


@dataclass(frozen=True)
class Answer:
    """What a subset is worth.

    Args:
        value: The value.
        seconds: That it took.
        flops: Floating-point operations that were counted.
        samples: Passed through a model, each pass counted.
        failed: 1 where the learner failed and a constant answer took its place.
    """

    value: float
    seconds: float = 0.0
    flops: float = 0.0
    samples: float = 0.0
    failed: float = 0.0

    def row(self) -> tuple[float, ...]:
        """Its numbers, in the order of the file."""
        return self.value, self.seconds, self.flops, self.samples, self.failed


@dataclass
class Payer:
    """Who asks: pays for every answer once, in full, whoever made it.

    Args:
        ledger: Where the cost goes.
        what: For what.
        paid: Keys of the answers that are paid for.
        recalled: Those of them that were known already and have not been booked yet.
    """

    ledger: Ledger
    what: str
    paid: set[bytes] = field(default_factory=set)
    recalled: list[Answer] = field(default_factory=list)


class Answers:
    """The memory of an oracle.

    Several processes may write the same file: what one has found is added to what is there, and where both answered the
    same question the first answer stays.

    Args:
        ctx: Its cache folder; without one answers are kept for this process only.
        description: All that answers depend on, in JSON types; None when it does not last, then nothing is kept on disk.

    Raises:
        StoreError: The file is damaged.
    """

    def __init__(self, ctx: Context, description: object) -> None:
        self.known: dict[bytes, Answer] = {}
        self.payers: list[Payer] = []
        self.payer: Payer | None = None
        self.every, self.saved, self.unsaved = ctx.checkpoint_seconds, time.monotonic(), False
        self.store: Store | None = None
        if ctx.cache is not None and description is not None:
            where = torch.device(ctx.device).type
            self.store = Store(
                ctx.cache / "utilities" / content_key("utilities", description, where, torch.__version__)
            )
            self._read()

    def keys(self, wide: Tensor) -> list[bytes]:
        """A key for each (b, n) mask."""
        return [hashlib.sha256(bits).digest() for bits in packed(wide)]

    def recall(self, key: bytes) -> Answer | None:
        """What is known; who asks pays for it."""
        answer, payer = self.known.get(key), self.payer
        if answer is not None and payer is not None and key not in payer.paid:
            payer.paid.add(key)
            payer.recalled.append(answer)
        return answer

    def remember(self, key: bytes, answer: Answer) -> None:
        """Keep an answer that was made just now, whose cost the clock of who asked has seen."""
        self.known[key] = answer
        self.unsaved = True
        if self.payer is not None:
            self.payer.paid.add(key)

    @contextmanager
    def paid_by(self, ledger: Ledger, what: str) -> Iterator[Payer]:
        """Inside, this is who asks."""
        found = [payer for payer in self.payers if payer.ledger is ledger and payer.what == what]
        payer = found[0] if found else Payer(ledger, what)
        if not found:
            self.payers.append(payer)
        before, self.payer = self.payer, payer
        try:
            yield payer
        finally:
            self.payer = before
            self.save(now=True)

    def save(self, now: bool = False) -> None:
        """Write what is known, every so many seconds or now."""
        if self.store is None or not self.unsaved or not (now or time.monotonic() - self.saved >= self.every):
            return
        with self.store.locked(wait=True):
            self._read()
            keys = torch.frombuffer(bytearray(b"".join(self.known)), dtype=torch.uint8).reshape(-1, 32)
            rows = torch.tensor([answer.row() for answer in self.known.values()], dtype=torch.float64)
            self.store.write_tensors(FILE, {"keys": keys, "answers": rows})
        self.saved, self.unsaved = time.monotonic(), False

    def _read(self) -> None:
        """Learn what the file has; the file is right where it is not new."""
        if self.store is None or not self.store.has(FILE):
            return
        table: dict[str, Any] = self.store.read_tensors(FILE)
        try:
            keys, rows = table["keys"].numpy(), table["answers"].tolist()
            there = {key.tobytes(): Answer(*row) for key, row in zip(keys, rows, strict=True)}
        except (KeyError, TypeError, ValueError) as error:
            path = self.store.folder / FILE
            raise StoreError(f"{path} does not hold answers of this version; delete it to make them anew") from error
        self.known = {**there, **{key: answer for key, answer in self.known.items() if key not in there}}
