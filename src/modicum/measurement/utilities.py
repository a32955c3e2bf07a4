"""Utilities: what a model trained on a subset is worth, for any subset, asked as often as a method likes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.ledger import Charge, Ledger
from modicum.measurement.answers import Answer, Answers
from modicum.measurement.features import Features
from modicum.measurement.learners import Growing, Learner, Problem, describe_learner, make_learner
from modicum.measurement.learners.problem import BLOCK, packed
from modicum.measurement.metric import METRICS, Metric, Outcome, constant_worth, empty_worth, metric_of, outcome_of
from modicum.reading import by_id, labels_of
from modicum.training.recipe import Recipe

__all__ = ["Metric", "Utilities", "Utility"]

Walk: TypeAlias = Generator[Tensor, "Tensor | None", None]
TOGETHER = 64  # subsets that are trained at once where sets cannot grow
NOBODY, LEARN = -1, -2  # in place of the only class of a set
IN_CACHE = 1 << 17  # entries of the outputs of sets that grow together


@dataclass(frozen=True)
class Utilities:
    """An oracle: subset of the training samples -> score on the validation samples of a learner trained on it.

    Args:
        learner: Key of a learner, with options or without (`ridge`, `knn(k=5)`, `logistic`, `network`, ...), or a learner
            such as a scikit-learn estimator wrapped in `Estimator`.
        encoder: On whose features (see `modicum.measurement.Features`); a `network` trains on the inputs themselves.
        metric: `accuracy`; `probability`: the mean probability of the right class; `squared-error`: the negative mean
            squared error of a regression; `auto`: the first for classes and the last for regression.

    Raises:
        ModicumError: The learner or the metric is unknown.
    """

    learner: Any = "ridge"
    encoder: str = "inputs"
    metric: Metric = "auto"

    def __post_init__(self) -> None:
        made = make_learner(self.learner)
        if not isinstance(self.learner, str):
            object.__setattr__(self, "learner", made)
        Features(self.encoder)
        if self.metric not in METRICS:
            raise ModicumError(f"metric={self.metric!r}; expected one of {', '.join(METRICS)}")

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> Utility:
        """The oracle; features that it needs are charged now, answers when they are given.

        Raises:
            DataError: There are no samples, no labels, ids repeat, or features are not finite.
        """
        learner = make_learner(self.learner)
        order = by_id(data.train)
        if data.train.info.task == "regression":
            targets, wanted = (_numbers(name, d) for name, d in zip(("train", "valid"), data))
            classes = 0
        else:
            targets, wanted = labels_of("train", data.train), labels_of("valid", data.valid)
            classes = max(data.train.classes, int(torch.cat([targets, wanted]).max()) + 1)
        device = "cpu" if torch.device(ctx.device).type == "mps" else ctx.device  # mps has no float64
        near, query = (torch.zeros(len(d), 0) for d in data[:2])
        if learner.reads == "features":
            table = Features(self.encoder).measure(data, recipe, ctx)
            near = _finite("features", table.train, data.train)
            query = _finite("features", table.valid, data.valid)
        problem = Problem(
            near.to(device)[order].double(),
            targets.to(device)[order],
            query.to(device).double(),
            wanted.to(device),
            classes,
            data.train[order],
            data.valid,
            recipe,
            ctx.with_(ledger=Ledger(), store=None),
        )
        return Utility(problem, learner, self.metric, self._answers(problem, learner, ctx) if learner.costly else None)

    def _answers(self, problem: Problem, learner: Learner, ctx: Context) -> Answers:
        described = describe_learner(learner)
        if described is None or not _lasting(problem.recipe):
            return Answers(ctx, None)
        prints = [dataset.fingerprint for dataset in (problem.train, problem.asked) if isinstance(dataset, Dataset)]
        depends = (self.encoder,) if learner.reads == "features" else ()
        return Answers(ctx, [described, self.metric, *depends, problem.recipe, ctx.seed, prints])

    def trainings(self) -> float:
        """Those of the encoder; what is trained on subsets is counted when questions are asked."""
        return Features(self.encoder).trainings() if make_learner(self.learner).reads == "features" else 0.0


class Utility:
    """The oracle itself: `v(S)` for any sets of players, who are the training samples in the order of their ids.

    An empty set is worth `empty`: what always answering the commonest class of the validation samples is worth, for the
    metric `probability` one over the number of classes (nothing for nearest neighbors, who have nobody to vote), for
    regression what the mean target is worth. A set of one class answers that class; the learner is not asked. A class that
    nobody in the set has is never the answer, and equal outputs answer the lowest class. Whoever asks does so inside
    `charged`, which books the cost.

    Memory is that of a block of 2^24 numbers for training and one for answers, and b n bits and bytes of masks.

    Args:
        problem: What to train on and what to answer.
        learner: What is trained.
        metric: See `Utilities`.
        memory: Where answers of a costly learner are kept; for this process only when None.
        groups: (n,) player that each sample belongs to, numbered from 0; every sample is a player when None.

    Attributes:
        players: How many there are.
        trainings: How many subsets the learner was trained on so far; each step of a set that grows counts as one.
        failures: How many different answers so far are constant ones because the learner failed.

    Raises:
        DataError: The metric does not suit the problem, or groups do not cover the samples.

    Example:
        >>> from modicum.data import load
        >>> utility = Utilities("ridge").measure(load("iris"), Recipe(), Context())
        >>> half = torch.arange(utility.players)[None] % 2 == 0
        >>> bool(utility.values(half) > utility.empty), utility.players
        (True, 90)
    """

    def __init__(
        self,
        problem: Problem,
        learner: Learner,
        metric: Metric = "auto",
        memory: Answers | None = None,
        groups: Tensor | None = None,
    ) -> None:
        if not len(problem.wanted):
            raise DataError("valid has 0 samples; expected at least one")
        if memory is None and learner.costly:
            memory = Answers(problem.ctx or Context(), None)
        self.problem, self.learner, self.memory = problem, learner, memory
        self.metric: Metric = metric if metric != "auto" else "accuracy" if problem.classes else "squared-error"
        self._measure = metric_of(self.metric, problem, learner)
        n = len(problem.targets)
        self.groups = None if groups is None else _numbered(groups, n)
        self.players = n if self.groups is None else int(self.groups.max()) + 1
        self.empty = empty_worth(self.metric, problem, learner)
        self.trainings = 0
        # what learners have booked, shared by all utilities of the problem
        self._spent = problem.ctx.ledger if problem.ctx is not None else Ledger()
        self._failed: set[bytes] = set()
        self._full: float | None = None

    def __repr__(self) -> str:
        samples = "" if self.groups is None else f" of {len(self.groups)} samples"
        return f"Utility({self.learner!r}, {self.metric}, {self.players} players{samples}, {len(self.problem.wanted)} queries)"

    @property
    def full(self) -> float:
        """What all players together are worth."""
        if self._full is None or self.memory is not None:  # a memory knows who has paid
            self._full = float(self.values(torch.ones(1, self.players, dtype=torch.bool))[0])
        return self._full

    @property
    def failures(self) -> int:
        return len(self._failed)

    @property
    def note(self) -> str:
        """What people must know about the answers; empty when there is nothing to say."""
        if not self._failed:
            return ""
        why = next(iter(self.problem.failures.values()), "in an earlier run")
        return f"the learner failed on {self.failures} subsets, which have a constant answer instead ({why})"

    def grouped(self, groups: Tensor) -> Utility:
        """The same oracle with groups of samples as players: sources, or buckets.

        Args:
            groups: (n,) player of each sample in the order of the ids, numbered from 0 without gaps.

        Raises:
            DataError: Another length, or a number that nobody has.
        """
        return Utility(self.problem, self.learner, self.metric, self.memory, groups)

    # -- questions -------------------------------------------------------------------------------------------------

    def values(self, masks: Tensor) -> Tensor:
        """What each set is worth.

        Args:
            masks: (b, players) boolean.

        Returns:
            (b,) float64.

        Raises:
            DataError: The shape is another, or a value is not finite (the set is named).
        """
        wide = self._samples(masks)
        return self._score(wide) if self.memory is None else self._recalled(wide, self.memory)

    def _recalled(self, wide: Tensor, memory: Answers) -> Tensor:
        keys = memory.keys(wide)
        todo = list({key: i for i, key in enumerate(keys) if memory.recall(key) is None}.items())
        for start in range(0, len(todo), TOGETHER):
            part = todo[start : start + TOGETHER]
            asked = wide[[i for _, i in part]]
            began, before = time.perf_counter(), self._spent.total()
            found = self._score(asked).tolist()
            seconds, after, size = time.perf_counter() - began, self._spent.total(), len(part)
            spent = (seconds / size, (after.flops - before.flops) / size, (after.samples - before.samples) / size)
            for (key, _), value, bits in zip(part, found, packed(asked)):
                memory.remember(key, Answer(value, *spent, float(bits in self.problem.failures)))
            memory.save()
        answers = [memory.known[key] for key in keys]
        self._failed.update(key for key, answer in zip(keys, answers) if answer.failed)
        return torch.tensor([answer.value for answer in answers], dtype=torch.float64)

    def prefixes(self, orders: Tensor, tolerance: float | None = None, patience: int = 5) -> tuple[Tensor, Tensor]:
        """What the players are worth as they join one by one.

        Args:
            orders: (b, players) permutations.
            tolerance: A permutation is cut off when its value was within this of `full` more than `patience` times in a
                row; everybody after that adds nothing. Never when None.
            patience: See `tolerance`.

        Returns:
            (b, players + 1) float64 values, first that of nobody; and (b,) how many had joined at the cut.

        Raises:
            DataError: The shape is another, rows are not permutations, or a value is not finite.
        """
        n, orders = self.players, orders.cpu()
        if orders.ndim != 2 or orders.shape[1] != n:
            raise DataError(f"orders has shape {tuple(orders.shape)}; expected (b, {n}), one place a player")
        if not torch.equal(orders.sort(dim=1).values, torch.arange(n).expand(len(orders), n)):
            raise DataError(f"orders has a row that is not a permutation of 0..{n - 1}")
        if tolerance is not None and not tolerance >= 0:
            raise DataError(f"tolerance={tolerance}; expected a number >= 0, or None")
        room = max(1, self.learner.room(self.problem))
        entries = len(self.problem.wanted) * self.problem.columns
        rows = max(1, min(BLOCK // room, max(32, IN_CACHE // entries)))
        full = self.full if tolerance is not None else 0.0
        made = [self._prefixes(part, full, tolerance, patience) for part in torch.split(orders, rows)]
        return torch.cat([values for values, _ in made]), torch.cat([length for _, length in made])

    def _prefixes(self, orders: Tensor, full: float, tolerance: float | None, patience: int) -> tuple[Tensor, Tensor]:
        b, n = orders.shape
        values = torch.full((b, n + 1), self.empty, dtype=torch.float64)
        length = torch.full((b,), n, dtype=torch.int64)
        alive, hits = torch.arange(b), torch.zeros(b, dtype=torch.int64)
        walk = self._walk(orders)
        j, kept = 0, None
        while j < n and len(alive):
            part = walk.send(kept)
            kept = None
            for step in range(part.shape[1]):  # more than one where sets of several sizes are trained at once
                j += 1
                values[alive, j] = part[:, step]
                if tolerance is None:
                    continue
                close = (part[:, step] - full).abs() <= tolerance
                hits = torch.where(close, hits + 1, 0)
                cut = hits > patience
                if cut.any():
                    values[alive[cut], j + 1 :] = part[cut, step][:, None]
                    length[alive[cut]] = j
                    kept = ~cut if kept is None else kept.masked_scatter(kept, ~cut)
                    alive, hits, part = alive[~cut], hits[~cut], part[~cut]
        walk.close()
        return values, length

    def outcomes(self, masks: Tensor, kind: Outcome = "margin") -> Tensor:
        """How well each set answers each query, for methods that look at queries one by one.

        Args:
            masks: (b, players) boolean.
            kind: `margin`: output for the right class minus the largest other (of logarithms, of probabilities no less
                than 1e-12, where outputs are logits or probabilities); minus the absolute error for regression.
                `correct`: whether the answer is right; for regression whether the error is under half a deviation.

        Returns:
            (b, m) float64; sets without a sample, or with one class, have no margin and give that of a constant answer: 1
            where it is right and -1 where it is wrong.
        """
        if kind not in ("margin", "correct"):
            raise DataError(f"kind={kind!r}; expected 'margin' or 'correct'")
        wide = self._samples(masks)
        made = torch.empty(len(wide), len(self.problem.wanted), dtype=torch.float64)
        for at in self._blocks(len(wide)):
            made[at] = self._outcome(wide[at], kind)
        return made

    def _outcome(self, wide: Tensor, kind: Outcome) -> Tensor:
        constant = self._constant(wide)
        fixed = constant != LEARN
        answers = self._ask(wide, ~fixed)
        found = outcome_of(answers, kind, self.problem, self.learner).cpu()
        if self.problem.classes:
            always = (constant[:, None] == self.problem.wanted.cpu()[None]).double()
            found[fixed] = (2 * always - 1 if kind == "margin" else always)[fixed]
        self._finite(found.sum(1), wide)
        return found

    @contextmanager
    def charged(self, ctx: Context, what: str) -> Iterator[None]:
        """Book what is asked inside: seconds, operations, samples, and the cost of answers that were known already.

        The same reader, by ledger and name, pays for an answer once.
        """
        before, memory = self._spent.total(), self.memory
        with memory.paid_by(ctx.ledger, what) if memory is not None else nullcontext() as payer:
            known = payer.recalled if payer else []
            try:
                with ctx.ledger.clock("choose", what) as counts:
                    try:
                        yield
                    finally:
                        spent = self._spent.total()
                        flops, samples = spent.flops - before.flops, spent.samples - before.samples
                        counts["extra_flops"] = flops + round(sum(answer.flops for answer in known))
                        counts["samples"] = samples + round(sum(answer.samples for answer in known))
                        counts["uncounted"] = (*getattr(self.learner, "uncounted", ()), *spent.uncounted)
            finally:
                if known:
                    last = ctx.ledger.charges[-1]
                    seconds = last.seconds + sum(answer.seconds for answer in known)
                    ctx.ledger.charges[-1] = replace(last, seconds=seconds)
                    known.clear()

    def book(self, trainings: int, flops: float) -> None:
        """Enter what was spent on the learner, for those who let its sets grow themselves."""
        self.trainings += trainings
        self._spent.add(Charge("choose", "utilities", extra_flops=round(flops)))
        self._spent.charges[:] = [self._spent.total()]  # as one, or there would be one for each question

    # -- answers ---------------------------------------------------------------------------------------------------

    def _samples(self, masks: Tensor) -> Tensor:
        """(b, n) masks of samples from masks of players."""
        if masks.ndim != 2 or masks.shape[1] != self.players or masks.dtype != torch.bool:
            raise DataError(
                f"masks is {masks.dtype} of shape {tuple(masks.shape)}; expected booleans of shape (b, {self.players})"
            )
        return masks.cpu() if self.groups is None else masks.cpu()[:, self.groups]

    def _blocks(self, b: int) -> Iterator[slice]:
        rows = max(1, BLOCK // (len(self.problem.wanted) * self.problem.columns + 4 * len(self.problem.targets)))
        yield from (slice(start, start + rows) for start in range(0, b, rows))

    def _constant(self, wide: Tensor) -> Tensor:
        """(b,) the only class of each set, NOBODY for an empty set, LEARN where there is something to learn."""
        if not self.problem.classes or self.learner.any_subset:
            return torch.where(wide.any(1), LEARN, NOBODY)
        targets = self.problem.targets.cpu()
        low = torch.where(wide, targets, self.problem.classes).amin(1)
        high = torch.where(wide, targets, -1).amax(1)
        return torch.where(high < 0, NOBODY, torch.where(low == high, high, LEARN))

    def _ask(self, wide: Tensor, learn: Tensor) -> Tensor:
        """(b, m, c) outputs; those of sets with nothing to learn stay zero."""
        problem = self.problem
        device = problem.targets.device
        answers = torch.zeros(len(wide), len(problem.wanted), problem.columns, dtype=torch.float64, device=device)
        if learn.any():
            asked = wide[learn]
            answers[learn.to(device)] = self.learner.outputs(problem, asked.to(device)).to(device)
            self.book(len(asked), len(asked) * self.learner.flops(problem, float(asked.sum()) / len(asked)))
        return answers

    def _score(self, wide: Tensor) -> Tensor:
        made = torch.empty(len(wide), dtype=torch.float64)
        for at in self._blocks(len(wide)):
            constant = self._constant(wide[at])
            learn = constant == LEARN
            found = self._measure(self._ask(wide[at], learn)).cpu()
            for i in (~learn).nonzero()[:, 0].tolist():
                found[i] = self._worth(int(constant[i]))
            made[at] = self._finite(found, wide[at])
        return made

    def _worth(self, constant: int) -> float:
        return self.empty if constant == NOBODY else constant_worth(self.problem, constant)

    def _finite(self, found: Tensor, wide: Tensor) -> Tensor:
        """The values, if they are numbers."""
        bad = (~found.isfinite()).nonzero()[:, 0]
        if len(bad):
            at = wide[bad[0]].nonzero()[:, 0]
            names = at[:20].tolist()
            if self.problem.train is not None:
                names = self.problem.train.ids[at[:20].numpy()].tolist()
            more = f" and {len(at) - 20} more" if len(at) > 20 else ""
            raise DataError(
                f"the learner {self.learner!r} gives {float(found[bad[0]])} after training on the {len(at)} samples "
                f"{names}{more}; expected finite numbers: look for extreme inputs, or regularize more"
            )
        return found

    def _walk(self, orders: Tensor) -> Walk:
        """A generator of (alive, steps) values; what is sent back is which of the permutations go on, or None."""
        growing = None
        if self.groups is None and self.memory is None:
            growing = self.learner.start(self.problem, orders.to(self.problem.targets.device))
        return self._walk_anew(orders) if growing is None else self._walk_growing(orders, growing)

    def _walk_growing(self, orders: Tensor, growing: Growing) -> Walk:
        device, targets = self.problem.targets.device, self.problem.targets.cpu()
        one_class = self.problem.classes > 0 and not self.learner.any_subset
        constant = torch.full((len(orders),), one_class)
        worth = torch.tensor([self._worth(c) for c in range(self.problem.classes)], dtype=torch.float64)
        steps = 0
        try:
            for j in range(self.players):
                at = orders[:, j]
                found = self._measure(growing.step()).cpu()
                steps += len(at)
                if one_class:
                    constant &= targets[at] == targets[orders[:, 0]]
                    one_class = bool(constant.any())
                    found[constant] = worth[targets[at[constant]]]
                if not bool(found.isfinite().all()):
                    there = torch.zeros(orders.shape, dtype=torch.bool).scatter_(1, orders[:, : j + 1], True)
                    self._finite(found, there)
                kept = yield found[:, None]
                if kept is not None:
                    orders, constant = orders[kept], constant[kept]
                    growing.keep(kept.to(device))
        finally:
            self.book(steps, steps * growing.flops)

    def _walk_anew(self, orders: Tensor) -> Walk:
        mask = torch.zeros(orders.shape, dtype=torch.bool)
        j = 0
        while j < self.players:
            steps = min(self.players - j, max(1, TOGETHER // max(1, len(orders))))
            masks = torch.empty(steps, *mask.shape, dtype=torch.bool)
            for step in range(steps):
                mask.scatter_(1, orders[:, j + step, None], True)
                masks[step] = mask
            j += steps
            found = self.values(masks.transpose(0, 1).reshape(-1, self.players))
            kept = yield found.reshape(len(orders), steps)
            if kept is not None:
                orders, mask = orders[kept], mask[kept]


def _numbered(groups: Tensor, n: int) -> Tensor:
    """Checked players of the samples, on the CPU."""
    plain = torch.as_tensor(groups).cpu()
    if plain.shape != (n,) or plain.is_floating_point() or plain.dtype == torch.bool:
        raise DataError(
            f"groups is {plain.dtype} of shape {tuple(plain.shape)}; expected ({n},) integers, one a sample"
        )
    present = torch.unique(plain)
    if not torch.equal(present, torch.arange(len(present))):
        raise DataError(
            f"groups has the players {present[:5].tolist()}..., {len(present)} in all; expected each of 0..{len(present) - 1}"
        )
    return plain.long()


def _numbers(name: str, dataset: Dataset) -> Tensor:
    """(n,) float64 targets of a regression, standardized as for training."""
    targets = dataset.prepare_targets().double()
    if targets.numel() != len(dataset) or not len(dataset):
        raise DataError(
            f"targets of {name} have shape {tuple(targets.shape)}; expected one number for each of >= 1 samples"
        )
    if not bool(targets.isfinite().all()):
        at = int((~targets.flatten().isfinite()).nonzero()[0])
        raise DataError(
            f"targets of {name}: that of sample {dataset.ids[at].item()!r} is {float(targets.flatten()[at])}"
        )
    return targets.flatten()


def _finite(name: str, rows: Tensor, dataset: Dataset) -> Tensor:
    """Features, if they are numbers."""
    bad = (~rows.isfinite()).any(1).nonzero()[:, 0]
    if len(bad):
        raise DataError(
            f"{name} of sample {dataset.ids[int(bad[0])].item()!r} are not finite; expected finite numbers: drop or impute it"
        )
    return rows


def _lasting(recipe: Recipe | None) -> bool:
    """Whether the description of a recipe says what model it makes."""
    model = getattr(recipe, "model", "")
    return isinstance(model, str) or "<" not in str(getattr(model, "__qualname__", "<"))
