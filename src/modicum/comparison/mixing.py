"""Several sources as one data set: what stays of each, how much of training each gets, and what became of every sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modicum.analysis import SourcePilot, allocate_samples, pilot_sources
from modicum.arrays import NumPy
from modicum.context import Context
from modicum.data import Duplicates, standardized
from modicum.data.parting import stratified_rows
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.ledger import epochs_elapsed
from modicum.scores import as_budget
from modicum.training.order import Mixture
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["KINDS", "Copies", "Mixed", "draw", "from_sources", "sample_table", "shares_of", "sizes_of"]

KINDS = ("size", "equal", "a-mtrl")
EXPLORE = 500  # samples of each source that the pilot of a-mtrl looks at


@dataclass(frozen=True, eq=False)
class Copies:
    """The training samples that repeat another one.

    Args:
        found: What was found, among validation and test samples too.
        at: (m,) where they stand in `found.dataset`.
        of: (m,) where what stands for each does.
        source: (m,) the number of the source of each, in `found.dataset`.
        of_source: (m,) and that of what stands for it.
        leaked: (m,) whether that is a validation or test sample.
        across: (m,) whether it is a training sample of another source.
    """

    found: Duplicates
    at: NumPy
    of: NumPy
    source: NumPy
    of_source: NumPy
    leaked: NumPy
    across: NumPy

    @staticmethod
    def among(found: Duplicates, first: int) -> Copies:
        """Those of the samples from `first` on; the ones before are validation and test samples."""
        assert found.dataset.sources is not None
        sources, at = found.dataset.sources.numpy(), np.flatnonzero(found.repeated)
        at = at[at >= first]
        of = found.first[at]
        return Copies(found, at, of, sources[at], sources[of], of < first, (of >= first) & (sources[of] != sources[at]))

    @property
    def other(self) -> NumPy:
        """(m,) whether the targets of the two differ."""
        targets = self.found.dataset.targets
        if targets is None:
            return np.zeros(len(self.at), bool)
        differs = targets[torch.from_numpy(self.at)] != targets[torch.from_numpy(self.of)]
        mask: NumPy = (differs if differs.ndim == 1 else differs.any(1)).numpy()
        return mask

    def __str__(self) -> str:
        equal = int(self.found.equal[self.at].sum())
        text = f"{equal:,} training samples repeat another one and {len(self.at) - equal:,} nearly so"
        kinds = {"validation or test samples": self.leaked, "samples of another source": self.across}
        told = [f"{int(mask.sum()):,} of them {kind}" for kind, mask in kinds.items() if mask.any()]
        return f"{text}: {' and '.join(told)}" if told else text


@dataclass(frozen=True, eq=False)
class Mixed:
    """Several sources as one data set, and how much of training each is to get.

    Args:
        splits: The mixture for training, with a column of sources, and the samples to choose and test on.
        weights: Share of the visits of training by the name of a source; they add up to 1.
        samples: A row for each training sample of the sources: `id`, `source`, `status` (kept, duplicate or not drawn),
            `reason`, `of` (what stands for it), `nearness` and `same_label`.
        copies: What was found to repeat, None where nobody looked.
        pilot: Of `a-mtrl`, None for other weights.
    """

    splits: Splits
    weights: dict[str, float]
    samples: pa.Table
    copies: Copies | None = None
    pilot: SourcePilot | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Training samples of each source in the mixture."""
        return sizes_of(self.splits.train)

    def sampler(self, seed: int = 0) -> Mixture:
        """The order of training that gives each source its share."""
        return Mixture(self.splits.train, self.weights, seed)

    def epochs(self, passes: float = 1.0) -> dict[str, float]:
        """Epochs of each source after so many passes, each of as many visits as there are samples."""
        sizes = {name: size for name, size in self.sizes.items() if size}
        return epochs_elapsed(sizes, self.weights, passes * len(self.splits.train))

    def rows(self) -> list[dict[str, Any]]:
        """For each source: samples, copies left out, samples not drawn and kept, weight, epochs a pass."""
        source, status = (np.array(self.samples[name].to_pylist(), dtype=str) for name in ("source", "status"))
        epochs, rows = self.epochs(), []
        for name in self.weights:
            counts = {
                kind: int(((source == name) & (status == kind)).sum()) for kind in ("duplicate", "not drawn", "kept")
            }
            row = {"source": name, "samples": sum(counts.values()), "copies": counts["duplicate"]}
            row |= {"not drawn": counts["not drawn"], "kept": counts["kept"], "weight": self.weights[name]}
            rows.append(row | {"epochs": epochs.get(name, 0.0)})
        return rows

    def __repr__(self) -> str:
        shares = ", ".join(f"{name}={weight:.3g}" for name, weight in self.weights.items())
        return f"Mixed({len(self.splits.train)} samples, {shares})"


def from_sources(data: Dataset, names: tuple[str, ...], column: Any) -> Dataset:
    """The same samples with these sources; ids keep the name of the source in front."""
    info = replace(data.info, sources=names, source=" + ".join(names))
    return data.replace(sources=torch.as_tensor(column, dtype=torch.int64), info=info)


def sizes_of(data: Dataset) -> dict[str, int]:
    """Samples of each source."""
    assert data.sources is not None
    counts = torch.bincount(data.sources, minlength=len(data.info.sources)).tolist()
    return dict(zip(data.info.sources, counts, strict=True))


def shares_of(
    weights: Mapping[str, float] | str,
    kept: Dataset,
    goal: str | None,
    aimed: Dataset | None,
    recipe: Recipe | None,
    ctx: Context,
) -> tuple[dict[str, float], SourcePilot | None]:
    """The share of the visits of each source, and the pilot where one was run.

    Args:
        weights: Numbers by source, or one of `KINDS`.
        kept: The samples to train on, with their sources.
        goal: The source that is the target, if one is.
        aimed: Training samples of the target.
        recipe: Of the pilot.
        ctx: Device, seed, and the ledger that is charged.

    Raises:
        DataError: A source with a weight has no samples left.
        ModicumError: Wrong weights.
    """
    sizes, pilot = sizes_of(kept), None
    if not isinstance(weights, str):
        for name in [name for name in sizes if weights.get(name) and not sizes[name]]:
            raise DataError(
                f"source {name!r} has the weight {weights[name]}, but every sample of it repeats another one; give it "
                "weight 0, or deduplicate=False"
            )
        Mixture(kept, weights)  # says what else is wrong
        numbers = {name: float(weights[name]) for name in sizes}
    elif weights == "a-mtrl":
        pilot = _pilot(kept, goal, aimed, recipe, ctx)
        numbers = {name: pilot.relevance.get(name, float(name == goal and size > 0)) for name, size in sizes.items()}
        if not any(numbers.values()):
            raise DataError("no source explains anything of the target; give weights by source, or 'equal'")
    else:
        numbers = {name: float(size) if weights == "size" else float(size > 0) for name, size in sizes.items()}
    return _normalized(numbers), pilot


def _normalized(numbers: Mapping[str, float]) -> dict[str, float]:
    total = sum(numbers.values())
    return {name: number / total if total else 0.0 for name, number in numbers.items()}


def _pilot(kept: Dataset, goal: str | None, aimed: Dataset | None, recipe: Recipe | None, ctx: Context) -> SourcePilot:
    names, sizes = kept.info.sources, sizes_of(kept)
    others = [i for i, name in enumerate(names) if name != goal and sizes[name]]
    if not others or aimed is None:
        raise ModicumError(f"weights='a-mtrl' needs a source beside the target; got {', '.join(names)}")
    assert kept.sources is not None
    rows = torch.isin(kept.sources, torch.tensor(others)).nonzero().flatten()
    back = torch.zeros(len(names), dtype=torch.int64)
    back[others] = torch.arange(len(others))
    some = from_sources(kept[rows], tuple(names[i] for i in others), back[kept.sources[rows]])
    return pilot_sources(standardized(some), aimed, recipe, ctx, EXPLORE)


def draw(
    train: Dataset, keeps: NumPy, shares: Mapping[str, float], keep: Any, ctx: Context
) -> tuple[NumPy, dict[str, float]]:
    """Which samples each source gives, and the shares of those that give any.

    Args:
        train: All samples, with their sources.
        keeps: (n,) which of them may be drawn.
        shares: Of the sources.
        keep: How many in all.
        ctx: Its seed is used.

    Returns:
        (n,) whether each sample is drawn, and shares that add up to 1.

    Raises:
        BudgetError: There are fewer.
    """
    assert train.sources is not None
    column = train.sources.numpy()
    members = [np.flatnonzero(keeps & (column == s)) for s in range(len(shares))]
    sizes = np.array([len(m) for m in members])
    count = as_budget(keep).count(int(sizes.sum()), max(1, train.classes))
    wanted = allocate_samples(np.array(list(shares.values())), count, sizes=sizes)
    labels = train.labels.numpy() if train.info.task == "classification" and train.targets is not None else None
    drawn = np.zeros(len(train), bool)
    for name, rows, number in zip(shares, members, wanted.tolist(), strict=True):
        seed = int(ctx.generator("mix", name).initial_seed())
        alike = None if labels is None else labels[rows]
        drawn[rows[stratified_rows(alike, len(rows), number, seed)]] = number > 0
    left = {name: share if number else 0.0 for (name, share), number in zip(shares.items(), wanted.tolist())}
    return drawn, _normalized(left)


def sample_table(train: Dataset, status: NumPy, copies: Copies | None, first: int) -> pa.Table:
    """A row for each training sample of the sources, as `Mixed.samples` says.

    Args:
        train: All of them.
        status: (n,) what became of each.
        copies: Those that repeat another one.
        first: Where they begin among all samples.
    """
    import pyarrow as pa

    assert train.sources is not None
    n = len(train)
    reasons, of, nearness, same = np.full(n, "", object), np.full(n, "", object), np.full(n, np.nan), np.full(n, None)
    if copies is not None:
        labeled = copies.found.dataset.targets is not None
        for at, one, other in zip(copies.at.tolist(), copies.of.tolist(), copies.other.tolist(), strict=True):
            row, near = at - first, float(copies.found.nearness[at])
            of[row], nearness[row] = str(copies.found.dataset.ids[one]), near
            same[row] = not other if labeled else None
            how = "equal to" if copies.found.equal[at] else f"nearly equal ({near:.3g}) to"
            reasons[row] = f"{how} {of[row]}{', which has another label' if other else ''}"
    reasons[status == "not drawn"] = "not among the samples drawn"
    names = np.array(train.info.sources)[train.sources.numpy()]
    columns = {
        **{"id": pa.array(train.ids.tolist(), pa.string()), "source": pa.array(names.tolist(), pa.string())},
        **{"status": pa.array(status.tolist(), pa.string()), "reason": pa.array(reasons.tolist(), pa.string())},
        **{"of": pa.array(of.tolist(), pa.string()), "nearness": pa.array(nearness, from_pandas=True)},
        **{"same_label": pa.array(same.tolist(), pa.bool_())},
    }
    return pa.table(columns)
