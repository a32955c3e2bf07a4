"""CS-Shapley: what a sample adds to the accuracy on its own class, given what that costs or brings the other classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from modicum.arrays import Array, class_indices
from modicum.errors import DataError
from modicum.measurement.learners.problem import BLOCK
from modicum.measurement.metric import TIE
from modicum.methods import Card
from modicum.reading import labels_of
from modicum.scores import Scores
from modicum.valuation.game import Estimate, one_thread
from modicum.valuation.players import as_scores, checked, steps_of

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.utilities import Utilities
    from modicum.store import Stateful

__all__ = ["CsShapley", "class_wise_utility", "cs_shapley"]

SETS = 32  # that grow at once, about
ROWS = 1024  # sets that are asked about at once


def class_wise_utility(correct: Tensor, wanted: Tensor, own: Tensor) -> Tensor:
    """The class-wise worth of sets: `a_c exp(a_-c)`.

    `a_c` is the number of right answers to validation samples of class c, and `a_-c` that to all others, both over the
    number m of all validation samples.

    Args:
        correct: (b, m) 1 for a right answer and 0 for a wrong one.
        wanted: (m,) classes of the validation samples.
        own: (b,) the class c of each row.

    Returns:
        (b,) float64.

    Example:
        >>> class_wise_utility(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1]), torch.tensor([0, 0])).tolist()
        [0.5, 0.8243606353500641]
    """
    right = correct.double()
    inside = (right * (wanted[None] == own[:, None])).sum(1)
    m = len(wanted)
    return inside / m * ((right.sum(1) - inside) / m).exp()


def cs_shapley(
    utility: Any,
    targets: Array,
    wanted: Array,
    generator: torch.Generator,
    permutations: int = 300,
    antithetic: bool = True,
    normalize: bool = True,
) -> Estimate:
    """Class-wise Shapley values by Monte Carlo over permutations of each class.

    For a sample of class c, `phi_i = E_T [Shapley value of i in the game on the samples of class c with the worth
    v(S | T) = a_c exp(a_-c) of the model trained on S and T]`, where T is a uniformly random subset of the samples of other
    classes, a new one for each permutation, and `a_c`, `a_-c` are as in `class_wise_utility`. Nobody answers nothing right.

    Args:
        utility: `modicum.measurement.Utility`, or a function of (b, n) booleans that gives (b, m) right answers as 1 and
            wrong ones as 0.
        targets: (n,) class indices of the players.
        wanted: (m,) class indices of the validation samples.
        generator: Of sets and permutations.
        permutations: Of each class; rounded up to even when antithetic.
        antithetic: Whether every permutation comes with its reverse, and the same T.
        normalize: Whether the values of each class are scaled to sum to its `a_c` when all samples are there, as in the
            paper; a class whose values do not sum to something positive is left as it is.

    Returns:
        Values, standard errors over the permutations (pairs, when antithetic), permutations of each class, and a note.

    Raises:
        DataError: Shapes do not fit, or an argument is out of range.

    Example:
        >>> y = torch.tensor([0, 0, 1, 1])
        >>> always_right = lambda masks: torch.ones(len(masks), 3)
        >>> cs_shapley(always_right, y, torch.tensor([0, 1, 1]), torch.Generator()).values.round(2).tolist()
        [0.17, 0.17, 0.33, 0.33]

    Reference:
        Schoch, Xu, Ji, CS-Shapley: Class-wise Shapley Values for Data Valuation in Classification, 2022, arXiv 2211.06800.
    """
    run = _ClassWise(utility, targets, wanted, generator, permutations, antithetic)
    return _carry_out(run, normalize, None)


class _ClassWise:
    """Sampling that can stop and go on; a unit is one permutation (or one and its reverse) of every class."""

    def __init__(
        self,
        utility: Any,
        targets: Any,
        wanted: Any,
        generator: torch.Generator,
        permutations: int,
        antithetic: bool,
    ) -> None:
        if permutations < 1:
            raise DataError(f"permutations={permutations}; expected at least 1")
        self.targets = torch.from_numpy(class_indices("targets", targets))
        self.wanted = torch.from_numpy(class_indices("wanted", wanted))
        players = getattr(utility, "players", len(self.targets))
        if players != len(self.targets):
            raise DataError(f"utility has {players} players but targets has {len(self.targets)} rows")
        self.utility, self.generator, self.antithetic = utility, generator, antithetic
        self.classes: list[int] = torch.unique(self.targets).tolist()
        absent = sorted(set(self.classes) - set(self.wanted.tolist()))
        if absent:
            warnings.warn(
                f"validation has no sample of class {absent[0]}, which {int((self.targets == absent[0]).sum())} training "
                "samples have: their class-wise values are 0",
                stacklevel=3,
            )
        n = len(self.targets)
        self.units = math.ceil(permutations / (2 if antithetic else 1))
        self.batch = max(1, SETS // (len(self.classes) * (2 if antithetic else 1)))
        self.done = self.utilities = 0
        self.mean, self.squares = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)

    @property
    def steps(self) -> int:
        return math.ceil(self.units / self.batch)

    def step(self) -> None:
        b = min(self.batch, self.units - self.done)
        orders, starts, own = [], [], []
        for _ in range(b):
            for c in self.classes:
                order, start = self._drawn(c)
                inside = order[start:][self.targets[order[start:]] == c]
                end = start + len(inside)
                for way in (inside, inside.flip(0)) if self.antithetic else (inside,):
                    orders.append(torch.cat([order[:start], way, order[end:]]))
                    starts.append(start)
                    own.append(c)
        row, first, owner = torch.stack(orders), torch.tensor(starts), torch.tensor(own)
        size = torch.bincount(self.targets)[owner]
        worth = self._windows(row, first, size, owner)
        marginal = worth.diff(dim=1)
        within = torch.arange(marginal.shape[1])[None] < size[:, None]
        at = (first[:, None] + torch.arange(marginal.shape[1])).clamp_max(row.shape[1] - 1)
        who = row.gather(1, at)
        ways = 2 if self.antithetic else 1
        units = torch.zeros(b, len(self.targets), dtype=torch.float64)
        unit = torch.arange(b).repeat_interleave(len(self.classes) * ways)[:, None].expand_as(who)
        units.index_put_((unit[within], who[within]), marginal[within] / ways, accumulate=True)
        total = self.done + b
        apart = units.mean(0) - self.mean
        self.squares += (units - units.mean(0)).square().sum(0) + apart.square() * (self.done * b / total)
        self.mean += apart * (b / total)
        self.utilities += int((size + 1).sum())
        self.done = total

    def _drawn(self, c: int) -> tuple[Tensor, int]:
        """A random set of others, everybody of class c, and the rest, who only fill the row; where class c begins."""
        n = len(self.targets)
        shuffled = torch.randperm(n, generator=self.generator)
        coin = torch.rand(n, generator=self.generator) < 0.5
        same = self.targets[shuffled] == c
        there = ~same & coin[shuffled]
        return torch.cat([shuffled[there], shuffled[same], shuffled[~same & ~there]]), int(there.sum())

    def _windows(self, orders: Tensor, starts: Tensor, sizes: Tensor, own: Tensor) -> Tensor:
        """(b, most of a class + 1) worth of the first `starts`, `starts` + 1, ... players of each row; 0 past its size."""
        worth = torch.zeros(len(orders), int(sizes.max()) + 1, dtype=torch.float64)
        if self._grow(worth, orders, starts, sizes, own):
            return worth
        rows, places = (torch.arange(worth.shape[1])[None] <= sizes[:, None]).nonzero(as_tuple=True)
        rank = torch.empty_like(orders).scatter_(1, orders, torch.arange(orders.shape[1]).expand_as(orders))
        for part in torch.split(torch.arange(len(rows)), ROWS):
            at = rows[part]
            masks = rank[at] < (starts[at] + places[part])[:, None]
            worth[at, places[part]] = class_wise_utility(self._correct(masks), self.wanted, own[at])
        return worth

    def _correct(self, masks: Tensor) -> Tensor:
        """(b, m) right answers; nobody gives none."""
        if hasattr(self.utility, "outcomes"):
            found: Tensor = self.utility.outcomes(masks, "correct")
        else:
            found = torch.as_tensor(self.utility(masks)).double()
            if found.shape != (len(masks), len(self.wanted)):
                raise DataError(
                    f"the utility gave {tuple(found.shape)} for {len(masks)} sets; expected ({len(masks)}, "
                    f"{len(self.wanted)}): 1 for each right answer"
                )
        return found * masks.any(1, keepdim=True)

    def _grow(self, worth: Tensor, orders: Tensor, starts: Tensor, sizes: Tensor, own: Tensor) -> bool:
        """The same for a learner that grows by a sample at a time: all rows grow, each is looked at in its own window."""
        learner = getattr(self.utility, "learner", None)
        if learner is None or learner.costly:
            return False
        for part in torch.split(torch.arange(len(orders)), max(1, BLOCK // max(1, learner.room(self.utility.problem)))):
            growing = learner.start(self.utility.problem, orders[part].to(self.utility.problem.targets.device))
            if growing is None:
                return False
            worth[part] = self._grown(growing, worth[part], orders[part], starts[part], sizes[part], own[part])
        return True

    def _grown(self, growing: Any, worth: Tensor, orders: Tensor, starts: Tensor, sizes: Tensor, own: Tensor) -> Tensor:
        utility, labels, ends = self.utility, self.targets[orders], starts + sizes
        wanted = utility.problem.wanted
        lower = -TIE * torch.arange(utility.problem.classes, dtype=torch.float64, device=wanted.device)[:, None]
        varied = (labels != labels[:, :1]).cummax(1).values  # whether there are two classes by then
        steps = int(ends.max())
        for j in range(1, steps + 1):
            answers = growing.step()
            here = ((starts <= j) & (j <= ends)).nonzero()[:, 0]
            if not len(here):
                continue
            outputs = answers[here.to(answers.device)].mT + lower
            right = outputs.gather(1, wanted.expand(len(here), 1, -1))[:, 0] >= outputs.amax(1)
            correct = right.double().cpu()
            if not utility.learner.any_subset:
                alone = ~varied[here, j - 1]
                correct[alone] = (labels[here[alone], :1] == self.wanted[None]).double()
            worth[here, j - starts[here]] = class_wise_utility(correct, self.wanted, own[here])
        utility.book(steps * len(orders), steps * len(orders) * growing.flops)
        return worth

    def estimate(self, normalize: bool) -> Estimate:
        values = self.mean.clone()
        errors = torch.full_like(values, torch.inf)
        if self.done > 1:
            errors = (self.squares / (self.done - 1) / self.done).sqrt()
        told = ""
        if normalize:
            everybody = self._correct(torch.ones(1, len(values), dtype=torch.bool))[0]
            for c in self.classes:
                member = self.targets == c
                total = float(values[member].sum())
                inside = float((everybody * (self.wanted == c)).sum()) / len(self.wanted)
                if total > 0:
                    values[member] *= inside / total
                    errors[member] *= inside / total
                elif bool((self.wanted == c).any()):
                    told += f"; class {c} is not normalized, as its values sum to {total:.2g}"
        ways = 2 if self.antithetic else 1
        drawn, total_drawn = self.done * ways, self.units * ways
        begun = f"{drawn:,}" if self.done == self.units else f"stopped after {drawn:,} of {total_drawn:,}"
        note = f"{begun} permutations of each class; {self.utilities:,} utilities{told}"
        return Estimate(values.numpy(), errors.numpy(), drawn, self.utilities, note)

    def state_dict(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "utilities": self.utilities,
            "mean": self.mean,
            "squares": self.squares,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.utilities = state["done"], state["utilities"]
        self.mean, self.squares = state["mean"].clone(), state["squares"].clone()
        self.generator.set_state(state["generator"])


def _carry_out(
    run: _ClassWise, normalize: bool, loop: Callable[[int, list[Stateful]], Iterator[int]] | None
) -> Estimate:
    with one_thread(run.utility):
        for _ in range(run.steps) if loop is None else loop(run.steps, [run]):
            run.step()
    return run.estimate(normalize)


@dataclass(frozen=True)
class CsShapley:
    """Class-wise Shapley values: made for finding wrong labels and for classes of very different sizes.

    A permutation of every class asks for the worth of n + c sets. Memory: as that of `DataShapley`, for max(32, 2 c)
    sets at once.

    Args:
        permutations: Of each class.
        learner: What is trained (see `modicum.measurement.Utilities`).
        encoder: On whose features.
        antithetic: See `cs_shapley`.
        normalize: See `cs_shapley`.
    """

    permutations: int = 300
    learner: str = "ridge"
    encoder: str = "inputs"
    antithetic: bool = True
    normalize: bool = True

    card: ClassVar[Card] = Card(
        key="cs-shapley",
        title="Shapley values within each class, given random others",
        paper="Schoch, Xu, Ji, CS-Shapley: Class-wise Shapley Values for Data Valuation in Classification, 2022, "
        "arXiv 2211.06800",
        saves=("samples", "labels"),
        growth=2.0,
    )

    def needs(self) -> tuple[Utilities]:
        """The learner's answers after training on any subset."""
        from modicum.measurement.utilities import Utilities

        return (Utilities(self.learner, self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values with standard errors; stops at the deadline and goes on from there another time."""
        utility = measured[0]
        labels_of("train", data.train, classes=2)  # regression has no classes
        labels, order = checked(data, utility)
        assert labels is not None
        with utility.charged(ctx, self.card.key):
            wanted = labels_of("valid", data.valid)
            generator = ctx.generator("cs-shapley")
            run = _ClassWise(
                utility, labels[order], wanted.numpy(), generator, self.permutations, bool(self.antithetic)
            )
            found = _carry_out(run, bool(self.normalize), steps_of(self, data, ctx, utility))
        return as_scores(self, data, labels, order, found)
