"""One evaluator for all synthetic sets: new networks trained on a set by its own recipe, beside what a sceptic asks for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modicum.dataset import Dataset, Splits
from modicum.distillation.distilled import Distilled, evaluation_recipe
from modicum.distillation.synthetic import spread
from modicum.errors import ModicumError
from modicum.models import build, features
from modicum.selection import k_center_greedy
from modicum.training.evaluate import forward
from modicum.training.fit import Fit, default_recipe, fit
from modicum.training.many import fit_many, stackable

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = [
    "ARCHITECTURES",
    "Trials",
    "augmentation_robust_score",
    "best_snapshot",
    "controls",
    "cross_architecture",
    "label_robust_score",
    "random_real",
    "robust_scores",
    "train_and_test",
]

ARCHITECTURES = (
    "mlp",
    "convnet(width=32)",
    "lenet",
    "alexnet(width=32)",
    "vgg11(width=16)",
    "resnet18(width=16, norm='instance')",
)
"""The networks of the table that shows whether a set is for one network only, a quarter as wide as published."""


@dataclass(frozen=True)
class Trials:
    """Test accuracies of networks trained alike from different initializations.

    Args:
        accuracies: In percent, one a network.

    Example:
        >>> Trials((90.0, 92.0)).mean, round(Trials((90.0, 92.0)).std, 2)
        (91.0, 1.41)
    """

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Percent."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Over networks, in points; 0 of one network."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def train_and_test(
    made: Distilled,
    test: Dataset,
    ctx: Context,
    networks: int = 5,
    *,
    model: str | None = None,
    recipe: Recipe | None = None,
) -> Trials:
    """Train new networks on a set by its recipe and test them on real data.

    A set made for one initialization is tested on that one.

    Args:
        made: The set.
        test: Real data as they were before any whitening.
        ctx: Device, seed, ledger.
        networks: How many, each with its own initialization.
        model: Another network than that of the recipe.
        recipe: Instead of the set's own.

    Returns:
        One accuracy a network.

    Raises:
        ModicumError: Fewer than one network.

    Example:
        >>> import modicum
        >>> from modicum.context import Context
        >>> data = modicum.load("digits")
        >>> recipe = evaluation_recipe("mlp", 100, epochs=200)
        >>> trials = train_and_test(Distilled(data.train[:100], recipe, "first"), data.test, Context(), networks=2)
        >>> trials.mean > 70
        True
    """
    recipe = recipe or made.recipe
    recipe = recipe if model is None else replace(recipe, model=model)
    seeds = _seeds(made, ctx, networks)
    return _tested(_trained(made, [made.dataset] * len(seeds), seeds, recipe, ctx), made.prepared(test), ctx)


def random_real(data: Dataset, budget: Budget, seed: int) -> Tensor:
    """(m,) positions of random real samples, as many of each class as a distiller makes.

    Args:
        data: With class labels.
        budget: How many.
        seed: Of the choice.

    Returns:
        (m,) positions, class after class.

    Example:
        >>> from modicum.dataset import Info
        >>> from modicum.scores import Budget
        >>> data = Dataset(torch.rand(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]), info=Info(classes=("a", "b")))
        >>> data.labels[random_real(data, Budget(per_class=2), seed=0)].tolist()
        [0, 0, 1, 1]
    """
    from modicum.context import generator

    labels, counts = data.labels, data.class_counts()
    keys = labels + torch.rand(len(data), generator=generator(seed, "random real"), dtype=torch.float64)
    return keys.argsort(stable=True)[_heads(counts, spread("a synthetic set", budget, counts))]


def controls(
    made: Distilled, data: Splits, budget: Budget, recipe: Recipe | None, ctx: Context, networks: int = 5
) -> dict[str, Trials]:
    """What the set has to beat, trained by its recipe and tested alike.

    `random`: as many real samples, others for every network. `k-center`: real samples spread over each class in the
    features of the network trained on all data. `soft labels`: the random samples with the probabilities that network
    gives them as targets: what labels alone are worth. `full`: all data, one network, by `recipe`. Where the recipe of the
    set is not the common protocol, `random, common protocol` too.

    Args:
        made: The set.
        data: Real data as they were before any whitening.
        budget: How many samples it has.
        recipe: For all data; one that suits them when None, with the network of the set.
        ctx: Device, seed, ledger.
        networks: How many for each row.

    Returns:
        Trials by row.

    Example:
        >>> import modicum
        >>> from modicum.context import Context
        >>> from modicum.scores import Budget
        >>> data, budget = modicum.load("iris"), Budget(per_class=1)
        >>> chosen = data.train[random_real(data.train, budget, 0)]
        >>> made = Distilled(chosen, evaluation_recipe("linear", 3, epochs=20), "random")
        >>> list(controls(made, data, budget, None, Context(), networks=1))
        ['random', 'k-center', 'soft labels', 'random, common protocol', 'full']
    """
    train, test = made.prepared(data.train), made.prepared(data.test)
    seeds = _seeds(made, ctx, networks)
    full = replace(recipe or default_recipe(train), model=made.recipe.model)
    whole = fit(train, full, ctx, name="control-full", phase="evaluate")
    chosen = [random_real(train, budget, seed) for seed in seeds]
    hard = [train[at] for at in chosen]
    soft = [_with_labels_of(whole, subset, ctx) for subset in hard]
    center = train[_centers(whole, train, budget, ctx)]
    common = evaluation_recipe(str(made.recipe.model), len(chosen[0]))
    rows: dict[str, tuple[list[Dataset], Recipe]] = {
        "random": (hard, made.recipe),
        "k-center": ([center] * len(seeds), made.recipe),
        "soft labels": (soft, replace(made.recipe, loss="cross-entropy")),
    }
    if made.recipe != common:
        rows["random, common protocol"] = (hard, common)
    plain = replace(made, teacher=None)
    found = {
        name: _tested(_trained(plain if name.startswith("random, ") else made, sets, seeds, how, ctx), test, ctx)
        for name, (sets, how) in rows.items()
    }
    return {**found, "full": _tested([whole], test, ctx)}


def cross_architecture(
    made: Distilled, data: Splits, models: Sequence[str], ctx: Context, networks: int = 3
) -> dict[str, Trials]:
    """The same set on other networks.

    Args:
        made: The set.
        data: Real data as they were before any whitening.
        models: Architectures, such as those of `ARCHITECTURES`.
        ctx: Device, seed, ledger.
        networks: How many of each.

    Returns:
        Trials by architecture; one that does not take inputs of this shape is left out.

    Example:
        >>> import modicum
        >>> from modicum.context import Context
        >>> data = modicum.load("iris")
        >>> made = Distilled(data.train[:9], evaluation_recipe("linear", 9, epochs=20), "first")
        >>> list(cross_architecture(made, data, ("linear", "mlp", "lenet"), Context(), networks=1))
        ['linear', 'mlp']
    """
    found = {}
    for model in models:
        try:
            build(model, made.dataset)
        except ModicumError:
            continue
        found[model] = train_and_test(made, data.test, ctx, networks, model=model)
    return found


def best_snapshot(
    made: Distilled, valid: Dataset, ctx: Context, networks: int = 1
) -> tuple[Distilled, list[dict[str, float]]]:
    """The moment at which the set was best, on the validation split.

    Args:
        made: With snapshots; the last is the set itself.
        valid: Real data, not the test split.
        ctx: Device, seed, ledger.
        networks: How many for each snapshot.

    Returns:
        The set of that moment, and rows of iteration and accuracy in percent.

    Example:
        >>> import modicum
        >>> from modicum.context import Context
        >>> made = modicum.distill("iris", "dm(iterations=2, lr_img='auto')", per_class=1)
        >>> made = replace(made, snapshots=tuple(replace(s, recipe=replace(s.recipe, epochs=5)) for s in made.snapshots))
        >>> best, rows = best_snapshot(made, modicum.load("iris").valid, Context())
        >>> [row["iteration"] for row in rows]
        [0.0, 1.0, 2.0]
    """
    rows = [
        {"iteration": float(s.iteration), "accuracy": train_and_test(made.at(s), valid, ctx, networks).mean}
        for s in made.snapshots
    ]
    if not rows:
        return made, []
    best = max(range(len(rows)), key=lambda i: (rows[i]["accuracy"], i))
    return (made if best == len(rows) - 1 else made.at(made.snapshots[best])), rows


def label_robust_score(improvement: float, gap: float, weight: float = 0.5) -> float:
    """How informative the samples are, whatever their labels.

    `(e^a - e^-1) / (e - e^-1)` with `a = w * improvement - (1 - w) * gap`.

    Args:
        improvement: Accuracy of the set less that of random real samples with the same kind of labels, in [-1, 1].
        gap: Accuracy of all data less that of the set, both with hard labels, in [-1, 1].
        weight: w in [0, 1].

    Returns:
        A number in [0, 1]; 0.2689 where a = 0.

    Example:
        >>> round(label_robust_score(0.0, 0.0), 4), label_robust_score(1.0, -1.0)
        (0.2689, 1.0)

    Reference:
        Li et al., DD-Ranking: Rethinking the Evaluation of Dataset Distillation, 2025, arXiv 2505.13300.
    """
    return _squashed(weight * improvement - (1 - weight) * gap)


def augmentation_robust_score(augmented: float, plain: float, weight: float = 0.5) -> float:
    """How informative the samples are, whatever the augmentation: the scale of `label_robust_score`.

    Args:
        augmented: Accuracy of the set less that of random real samples, both trained with augmentation, in [-1, 1].
        plain: The same without augmentation.
        weight: Of the first.

    Returns:
        A number in [0, 1].

    Example:
        >>> round(augmentation_robust_score(0.1, 0.1), 4)
        0.3137

    Reference:
        Li et al., DD-Ranking: Rethinking the Evaluation of Dataset Distillation, 2025, arXiv 2505.13300.
    """
    return _squashed(weight * augmented + (1 - weight) * plain)


def robust_scores(
    made: Distilled, data: Splits, budget: Budget, full: Trials, ctx: Context, networks: int = 3
) -> dict[str, float]:
    """Both robust scores and what they are made of.

    Args:
        made: The set.
        data: Real data as they were before any whitening.
        budget: How many samples it has.
        full: Of all data with hard labels.
        ctx: Device, seed, ledger.
        networks: How many for each accuracy.

    Returns:
        `label-robust` and `augmentation-robust` in [0, 1], `improvement over random` and `hard label gap` in points.

    Example:
        >>> import modicum
        >>> from modicum.context import Context
        >>> from modicum.scores import Budget
        >>> data, budget = modicum.load("iris"), Budget(per_class=1)
        >>> chosen = data.train[random_real(data.train, budget, 0)]
        >>> made = Distilled(chosen, evaluation_recipe("linear", 3, epochs=20), "random")
        >>> found = robust_scores(made, data, budget, Trials((97.0,)), Context(), networks=1)
        >>> 0 < found["label-robust"] < 1
        True
    """
    train, test, seeds = made.prepared(data.train), made.prepared(data.test), _seeds(made, ctx, networks)
    hard = replace(made, dataset=made.dataset.replace(targets=made.dataset.labels), teacher=None)
    real = [train[random_real(train, budget, seed)] for seed in seeds]
    model, image = str(made.recipe.model), data.train.info.modality == "image"
    plain = evaluation_recipe(model, len(made))
    strategy = "color_crop_cutout_scale_rotate" if image else "none"
    augmented = evaluation_recipe(model, len(made), augment=strategy)

    def accuracy(which: Distilled, sets: list[Dataset], recipe: Recipe) -> float:
        return _tested(_trained(which, sets, seeds, recipe, ctx), test, ctx).mean / 100

    own = [made.dataset] * len(seeds)
    hards = [hard.dataset] * len(seeds)
    improvement = accuracy(made, own, made.recipe) - accuracy(made, real, made.recipe)
    with_hard = accuracy(hard, hards, plain)
    gap = full.mean / 100 - with_hard
    without = with_hard - accuracy(hard, real, plain)
    more = accuracy(hard, hards, augmented) - accuracy(hard, real, augmented) if image else without
    return {
        "label-robust": label_robust_score(improvement, gap),
        "augmentation-robust": augmentation_robust_score(more, without),
        "improvement over random": 100 * improvement,
        "hard label gap": 100 * gap,
    }


def _seeds(made: Distilled, ctx: Context, networks: int) -> list[int]:
    if networks < 1:
        raise ModicumError(f"networks={networks}; expected an integer >= 1")
    return [made.seed] if made.seed is not None else [1000 * (ctx.seed + 1) + i for i in range(networks)]


def _trained(made: Distilled, sets: list[Dataset], seeds: list[int], recipe: Recipe, ctx: Context) -> list[Fit]:
    """One network a set; a teacher of `made` gives the targets."""
    alone = ctx.with_(store=None, show=False)
    if made.teacher is None and stackable(build(recipe.model, sets[0])):
        return fit_many(sets, recipe, alone, seeds=seeds, name="trials", phase="evaluate")
    objective = None if made.teacher is None else made.teacher.objective()
    return [
        fit(subset, recipe, alone.with_(seed=seed), objective=objective, name="trial", phase="evaluate")
        for subset, seed in zip(sets, seeds, strict=True)
    ]


def _tested(fits: list[Fit], test: Dataset, ctx: Context) -> Trials:
    found = []
    for done in fits:
        outputs = forward(done.model, test, ctx)
        found.append(100 * float((outputs.argmax(1) == test.labels).double().mean()))
    return Trials(tuple(found))


def _with_labels_of(teacher: Fit, subset: Dataset, ctx: Context) -> Dataset:
    return subset.replace(targets=forward(teacher.model, subset, ctx).softmax(1))


def _centers(whole: Fit, train: Dataset, budget: Budget, ctx: Context) -> Tensor:
    """Positions spread over each class in the features of a trained network, the first at random."""
    rows = forward(whole.model, train, ctx, function=features)
    labels, counts = train.labels, train.class_counts()
    picked = []
    for c, count in enumerate(spread("k-center", budget, counts).tolist()):
        there = (labels == c).nonzero().flatten()
        picked.append(there[torch.as_tensor(k_center_greedy(rows[there].numpy(), min(count, len(there)))).long()])
    return torch.cat(picked)


def _heads(counts: Tensor, taken: Tensor) -> Tensor:
    """Positions of the first so many of each class in an order by classes, again and again where there are too few."""
    first = counts.cumsum(0) - counts
    ranks = torch.cat([torch.arange(k) for k in taken.tolist()])
    own = torch.arange(len(counts)).repeat_interleave(taken)
    return first[own] + ranks % counts[own]


def _squashed(a: float) -> float:
    return (math.exp(a) - math.exp(-1)) / (math.e - math.exp(-1))
