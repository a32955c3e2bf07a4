"""Many linear tasks on one representation: least squares by turns, and the choice of what to sample next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from modicum.analysis.a_mtrl import STRATEGIES, Relevance, allocate_samples, source_relevance
from modicum.arrays import NumPy, real
from modicum.errors import DataError, ModicumError

__all__ = ["ActiveTasks", "active_tasks", "shared_representation"]

DIRECT = 200  # unknowns of the representation that are solved for at once
Sample = tuple[Any, Any]


class ActiveTasks(NamedTuple):
    """What `active_tasks` found.

    Args:
        body: B (d, k), orthonormal columns.
        heads: W (k, M) of the sources.
        head: (k,) of the target; its prediction is `x B head`.
        relevance: Of the sources, as estimated after exploring.
        counts: (M,) samples that were drawn of each source.
    """

    body: NumPy
    heads: NumPy
    head: NumPy
    relevance: Relevance
    counts: NumPy


def shared_representation(
    inputs: Sequence[Any], targets: Sequence[Any], rank: int, rounds: int = 50, tolerance: float = 1e-5
) -> tuple[NumPy, NumPy]:
    """Linear regressions on one representation: `min over B, W of sum_m ||y_m - X_m B w_m||^2`.

    From the top k left singular vectors of the ridge regressions of all tasks, weighted by the roots of their sizes, by
    turns: every w_m by least squares on X_m B, then B by least squares given W, made orthonormal. The sum never grows.
    Memory M d^2 for the products X'X; B is found at once for k d <= 200 and by conjugate gradients above.

    Args:
        inputs: For each of M tasks X_m (n_m, d).
        targets: For each y_m (n_m,).
        rank: k <= d.
        rounds: Most turns.
        tolerance: Relative decrease of the sum below which it ends.

    Returns:
        B (d, k) with orthonormal columns, and W (k, M).

    Raises:
        DataError: The tasks do not fit together.
        ModicumError: The rank is not in 1..d.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> x = [draw.normal(size=(50, 6)) for _ in range(8)]
        >>> truth = draw.normal(size=(6, 2)) @ draw.normal(size=(2, 8))
        >>> body, heads = shared_representation(x, [a @ b for a, b in zip(x, truth.T)], rank=2)
        >>> bool(np.abs(body @ heads - truth).max() < 1e-4)
        True

    Reference:
        Wang et al., Improved Active Multi-Task Representation Learning via Lasso, 2023, arXiv 2306.02556.
    """
    if not len(inputs) or len(inputs) != len(targets):
        raise DataError(f"inputs has {len(inputs)} tasks and targets {len(targets)}; expected as many, at least one")
    x = [real(f"inputs[{m}]", part, (2,), "(n, d)").astype(np.float64) for m, part in enumerate(inputs)]
    y = [real(f"targets[{m}]", part, (1,), "(n,)").astype(np.float64) for m, part in enumerate(targets)]
    d = x[0].shape[1]
    for m, (a, b) in enumerate(zip(x, y, strict=True)):
        if a.shape != (len(b), d):
            raise DataError(f"inputs[{m}] has shape {a.shape}; expected ({len(b)}, {d}), one row a target")
    if not 1 <= rank <= d:
        raise ModicumError(f"rank={rank}; expected an integer from 1 to the {d} columns of the inputs")
    squares = np.stack([a.T @ a for a in x])
    products = np.stack([a.T @ b for a, b in zip(x, y, strict=True)])
    sizes = np.array([len(b) for b in y])
    small = 1e-3 * np.trace(squares, axis1=1, axis2=2) / d + 1e-12
    alone = np.linalg.solve(squares + small[:, None, None] * np.eye(d), products[..., None])[..., 0]
    body = np.linalg.svd((alone * np.sqrt(sizes)[:, None]).T, full_matrices=True)[0][:, :rank]
    total, before = float(sum(b @ b for b in y)), np.inf
    heads = _heads(squares, products, body)
    for _ in range(rounds):
        body = np.linalg.qr(_body(squares, products, body, heads))[0]
        heads = _heads(squares, products, body)
        fitted = body @ heads.T
        error = (
            total
            - 2 * float((products.T * fitted).sum())
            + float((fitted.T * (squares @ fitted.T[..., None])[..., 0]).sum())
        )
        if before - error <= tolerance * max(abs(error), 1e-12 * total):
            break
        before = error
    return body, heads.T


def active_tasks(
    draw: Callable[[int, int], Sample],
    sources: int,
    target: Sample,
    rank: int,
    budget: int,
    explore: float = 0.4,
    minimum: int = 8,
    strategy: str = "l1",
    penalty: float | None = None,
) -> ActiveTasks:
    """Explore every source alike, estimate which ones make the target, and spend the rest of the budget on those.

    First `explore * budget` samples, spread evenly, give B and W, and the target's own samples its head w by least squares
    on X B. The lasso of w on W gives nu (for `l2` the pseudo-inverse), and the counts of all samples are those of
    `allocate_samples`, no source below what was explored. Then B and W are fitted again on everything, and the target's
    head on that B.

    Args:
        draw: Gives (X, y) of so many new samples of a source, called with its number and the count.
        sources: M.
        target: (X, y) of the target task.
        rank: k of the representation.
        budget: N source samples in all.
        explore: Share of the budget for the first phase.
        minimum: Samples of each source at least.
        strategy: `l1`, `l2` or `uniform`.
        penalty: Of the lasso; 1e-3 ||W'w||_inf when None.

    Returns:
        Body, heads, the target's head, relevance and counts.

    Raises:
        DataError: NaN in the target, or tasks that do not fit together.
        ModicumError: A share outside (0, 1], an unknown strategy, or too small a budget.

    Example:
        >>> random = np.random.default_rng(0)
        >>> truth = random.normal(size=(6, 2)) @ random.normal(size=(2, 5))
        >>> def draw(source, count):
        ...     x = random.normal(size=(count, 6))
        ...     return x, x @ truth[:, source] + 0.1 * random.normal(size=count)
        >>> found = active_tasks(draw, 5, draw(3, 40), rank=2, budget=400, strategy="l1")
        >>> int(found.counts.sum()), bool(np.abs(found.body @ found.head - truth[:, 3]).max() < 0.1)
        (400, True)

    Reference:
        Wang et al., Improved Active Multi-Task Representation Learning via Lasso, 2023, arXiv 2306.02556.
    """
    if not 0 < explore <= 1:
        raise ModicumError(f"explore={explore}; expected a share in (0, 1]")
    if strategy not in STRATEGIES:  # before anything is drawn
        raise ModicumError(f"strategy={strategy!r}; expected {', '.join(map(repr, STRATEGIES))}")
    x, y = real("target[0]", target[0], (2,), "(n, d)"), real("target[1]", target[1], (1,), "(n,)")
    if len(x) != len(y):
        raise DataError(f"target has {len(x)} inputs and {len(y)} values; expected as many")
    first = allocate_samples(np.ones(sources), max(round(explore * budget), sources * minimum), minimum, "uniform")
    if first.sum() > budget:
        raise ModicumError(f"budget={budget} samples; expected at least minimum={minimum} of each of {sources} sources")
    drawn = [[draw(m, int(n))] for m, n in enumerate(first)]
    body, heads = _fitted(drawn, rank)
    head = np.linalg.lstsq(x @ body, y, rcond=None)[0]
    if strategy == "l2":
        relevance = source_relevance(heads, head, 2)
    else:
        small = 1e-3 * float(np.abs(heads.T @ head).max()) or 1e-12  # what no source tells anything of has no scale
        relevance = source_relevance(heads, head, 1, small if penalty is None else penalty)
    goal = allocate_samples(relevance.values, budget, int(first.min()), strategy)  # type: ignore[arg-type]
    more = np.maximum(goal - first, 0)
    while more.sum() > budget - first.sum():  # uneven first counts may overshoot by a few
        more[np.argmax(more)] -= 1
    for m, n in enumerate(more):
        if n:
            drawn[m].append(draw(m, int(n)))
    body, heads = _fitted(drawn, rank)
    head = np.linalg.lstsq(x @ body, y, rcond=None)[0]
    return ActiveTasks(body, heads, head, relevance, first + more)


def _fitted(drawn: list[list[Sample]], rank: int) -> tuple[NumPy, NumPy]:
    x = [np.concatenate([part[0] for part in parts]) for parts in drawn]
    return shared_representation(x, [np.concatenate([part[1] for part in parts]) for parts in drawn], rank)


def _heads(squares: NumPy, products: NumPy, body: NumPy) -> NumPy:
    """(M, k) the best head of each task on this representation; the shortest where samples are few."""
    inner = body.T @ (squares @ body)
    heads: NumPy = (np.linalg.pinv(inner, rcond=1e-10, hermitian=True) @ (products @ body)[..., None])[..., 0]
    return heads


def _body(squares: NumPy, products: NumPy, body: NumPy, heads: NumPy) -> NumPy:
    """(d, k) the best representation for these heads: sum_m X'X B w w' = sum_m X'y w'."""
    d, k = body.shape
    right = products.T @ heads
    if d * k <= DIRECT:
        matrix = np.einsum("mde,mk,ml->dkel", squares, heads, heads, optimize=True).reshape(d * k, d * k)
        found: NumPy = np.linalg.lstsq(matrix, right.reshape(-1), rcond=1e-12)[0].reshape(d, k)
        return found

    def times(b: NumPy) -> NumPy:
        turned = (squares @ (heads @ b.T)[..., None])[..., 0]
        product: NumPy = turned.T @ heads
        return product

    rest = right - times(body)
    step, size = rest.copy(), float((rest * rest).sum())
    for _ in range(30):
        if size <= 1e-20 * float((right * right).sum()):
            break
        moved = times(step)
        alpha = size / float((step * moved).sum())
        body, rest = body + alpha * step, rest - alpha * moved
        new = float((rest * rest).sum())
        step, size = rest + new / size * step, new
    return body
