"""Where a data set lies in the phase diagram of pruning, from a pilot learning curve, and what that predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modicum.arrays import NumPy
from modicum.errors import DataError, ModicumError
from modicum.selection.pruning_theory import pruning_theory

if TYPE_CHECKING:
    from modicum.measurement.learning_curve import CurveTable
    from modicum.selection.pruning_pilot import PilotTable

__all__ = ["AlphaFit", "KeepForecast", "PruningForecast", "fit_alpha", "forecast_pruning", "probe_of"]

ORDERS = ("random", "hardest", "easiest")
LEAST, MOST = 1e-3, 1e3  # of alpha
CLEAR = 0.9  # share of the draws that must agree before a rule counts as better
LEAD = 2.0  # standard errors of the difference to random, from which the pilot decides alone
WORDS = {"random": "random samples", "hardest": "the hardest", "easiest": "the easiest", "": "nothing clearly"}
KEEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False)
class AlphaFit:
    """The theory's random curve, laid through a learning curve.

    Args:
        alpha: Samples per effective dimension of all the data.
        low: Fifth percentile of it over draws of the curve.
        high: Ninety-fifth percentile.
        floor: Normalized error that no number of samples removes; 0 where none was fitted.
        misfit: Mean square of the residuals in standard errors; 1 where the theory holds.
        draws: (k,) alphas of the draws.
        floors: (k,) floors of the draws.
    """

    alpha: float
    low: float
    high: float
    floor: float
    misfit: float
    draws: NumPy
    floors: NumPy

    def curve(self, shares: Any) -> NumPy:
        """(p,) normalized errors of the fitted curve at shares of the data."""
        return self.floor + (1 - self.floor) * 2 * _random_error(self.alpha * np.asarray(shares, dtype=np.float64))


@dataclass(frozen=True)
class KeepForecast:
    """What is predicted for one share kept.

    Args:
        keep: The share.
        random: Predicted error of the data's own model, between 0 and 1, with a random subset.
        hardest: With the hardest kept.
        easiest: With the easiest kept.
        best: The rule with the least error.
        sure: Share of the draws in which it is the best.
        crossing: Samples per dimension above which the hardest are the better half of the two; NaN where neither
            gives way between the least and the greatest that were looked at.
        tried_at: Share at which the pilot trained on the hardest and the easiest: this one, or the nearest; NaN where it
            did not.
        tried_random: Error of the pilot's models with random samples, on the validation split.
        tried_hardest: With the hardest.
        tried_easiest: With the easiest.
        proven: The rule that erred less than random samples there by two standard errors of the difference; empty where
            none did.
    """

    keep: float
    random: float
    hardest: float
    easiest: float
    best: str
    sure: float
    crossing: float
    tried_at: float = math.nan
    tried_random: float = math.nan
    tried_hardest: float = math.nan
    tried_easiest: float = math.nan
    proven: str = ""

    @property
    def clear(self) -> bool:
        """Whether at least nine of ten draws agree on the rule."""
        return self.sure >= CLEAR

    @property
    def tried(self) -> bool:
        """Whether the pilot trained on the hardest and the easiest."""
        return not math.isnan(self.tried_at)

    @property
    def contradicted(self) -> bool:
        """Whether the rule that is predicted best erred more than random samples in the pilot."""
        return bool(getattr(self, f"tried_{self.best}") > self.tried_random)

    @property
    def choice(self) -> str:
        """What to keep: the rule that is better in the pilot by two standard errors; else the one that is clearly
        predicted best, unless it erred more than random samples in the pilot; else random samples."""
        return self.proven or (self.best if self.clear and not self.contradicted else "random")

    @property
    def why(self) -> str:
        """The reason of the choice, in a few words."""
        if self.proven:
            return "clearly better than random in the pilot"
        if not self.clear:
            return f"nothing is clear: {100 * self.sure:.0f} % of the draws say {self.best}"
        if self.contradicted:
            return f"{self.best}, predicted best, erred more in the pilot"
        return "predicted best" + (", and no worse in the pilot" if self.tried and self.best != "random" else "")


@dataclass(frozen=True, eq=False)
class PruningForecast:
    """Which samples theory would keep of a data set.

    Args:
        fit: Where the data lie.
        angle: Between the scoring probe and the truth, in radians.
        chance: Error of guessing.
        rows: One for each share asked for.
        alphas: (a,) grid of samples per dimension of the diagram.
        diagram: (a, keeps, 3) theory errors in [0, 1/2] on it: random, hardest, easiest.
        shares: (p,) of the learning curve.
        errors: (p,) its errors.
        deviations: (p,) their standard errors.
        pilot: The trainings on the hardest and the easiest, where there were any.
    """

    fit: AlphaFit
    angle: float
    chance: float
    rows: tuple[KeepForecast, ...]
    alphas: NumPy
    diagram: NumPy
    shares: NumPy
    errors: NumPy
    deviations: NumPy
    pilot: PilotTable | None = None

    @property
    def misfit(self) -> bool:
        """Whether the learning curve is clearly not of the theory's shape."""
        return self.fit.misfit > 4

    @property
    def sentence(self) -> str:
        """The answer."""
        about = "at least" if self.fit.alpha >= MOST else "at most" if self.fit.alpha <= LEAST else "about"
        text = (
            f"By its learning curve this data set has {about} {self.fit.alpha:.2g} samples per effective dimension (90 % "
            f"interval {self.fit.low:.2g} to {self.fit.high:.2g}): "
        )
        predicted = [
            f"keeping {span}, {WORDS[rule]} {'is' if not rule else 'are'} predicted best"
            for span, rule in _spans(self.rows, [row.best if row.clear else "" for row in self.rows])
        ]
        text += "; ".join(predicted) + "."
        if self.misfit:
            text += " The curve has another shape than the theory's, so take this as a hint and compare with random."
        if self.pilot is not None:
            advised = _spans(self.rows, [row.choice for row in self.rows])
            said = "; ".join(f"keeping {span}, take {WORDS[rule]}" for span, rule in advised)
            low, high = 100 * self.shares[0], 100 * self.shares[-1]
            text += f" The pilot trained on the hardest and the easiest {low:.2g} to {high:.2g} %, too; counting that: {said}."
        return text

    def at(self, keep: float) -> KeepForecast:
        """What is predicted for a share that was asked for.

        Raises:
            ModicumError: It was not.
        """
        for row in self.rows:
            if math.isclose(row.keep, keep, rel_tol=1e-9):
                return row
        raise ModicumError(f"keep={keep} was not forecast; expected one of {[row.keep for row in self.rows]}")


def fit_alpha(
    shares: Any,
    errors: Any,
    deviations: Any,
    classes: int = 2,
    floor: bool = False,
    draws: int = 200,
    seed: int = 0,
    *,
    chance: float | None = None,
    correlation: Any = None,
) -> AlphaFit:
    """How many samples per effective dimension a data set has, by its learning curve.

    Errors are normalized by that of guessing, `e / (1 - 1/C)` for C classes of one size, so that guessing has 1, and the curve `f + (1 - f) 2 eps(alpha s)` is fitted
    at the shares s by weighted least squares, with eps the theory's error of random subsets. The interval is that of a
    parametric bootstrap: errors are drawn with their standard errors, which are enlarged by the misfit where the curve
    has another shape than the theory's.

    Args:
        shares: (p,) shares of the training samples, in (0, 1], p >= 2; p >= 3 with a floor.
        errors: (p,) errors in [0, 1].
        deviations: (p,) their standard errors > 0.
        classes: Number of classes.
        floor: Whether to fit an error that no number of samples removes.
        draws: Of the bootstrap.
        seed: Of the draws.
        chance: Error of guessing in (0, 1), where the classes are not of one size; 1 - 1 / classes when None.
        correlation: (p, p) of the errors, which are often measured on the same samples; none when None. Errors on one
            validation split that are taken for independent give an interval that is too narrow.

    Raises:
        DataError: Shapes differ, or numbers are out of range.

    Example:
        >>> shares = np.array([0.1, 0.2, 0.4])
        >>> found = fit_alpha(shares, pruning_theory(20 * shares), np.full(3, 0.01))
        >>> round(found.alpha, 1), found.low < 20 < found.high
        (20.0, True)

    Reference:
        Sorscher, Geirhos, Shekhar, Ganguli, Morcos, Beyond neural scaling laws: beating power law scaling via data
        pruning, 2022, arXiv 2206.14486.
    """
    s, e, d = (np.asarray(x, dtype=np.float64) for x in (shares, errors, deviations))
    if s.ndim != 1 or s.shape != e.shape or s.shape != d.shape or len(s) < 2 + floor:
        raise DataError(
            f"shares, errors and deviations have shapes {s.shape}, {e.shape}, {d.shape}; expected three times (p,) with "
            f"p >= {2 + floor}"
        )
    for name, x, right, expected in (
        ("shares", s, (s > 0) & (s <= 1), "shares in (0, 1]"),
        ("errors", e, (e >= 0) & (e <= 1), "errors in [0, 1]"),
        ("deviations", d, (d > 0) & np.isfinite(d), "standard errors > 0"),
    ):
        if not right.all():
            at = int(np.argmin(right))
            raise DataError(f"{name}[{at}] is {x[at]}; expected {expected}")
    if classes < 2:
        raise DataError(f"classes={classes}; expected at least 2")
    chance = 1 - 1 / classes if chance is None else float(chance)
    if not 0 < chance < 1:
        raise DataError(f"chance={chance}; expected an error of guessing in (0, 1)")
    mixed = np.eye(len(s)) if correlation is None else np.asarray(correlation, dtype=np.float64)
    if mixed.shape != (len(s), len(s)) or not np.isfinite(mixed).all():
        raise DataError(f"correlation has shape {mixed.shape}; expected ({len(s)}, {len(s)}) with finite numbers")
    e, d = np.minimum(e / chance, 1.0), d / chance
    alphas = np.geomspace(LEAST, MOST, 2000)
    theory = 2 * _random_error(alphas[:, None] * s)
    alpha, under, cost = _least(e[None], d, alphas, theory, floor)
    misfit = float(cost[0]) / max(1, len(s) - 1 - floor)
    noise = torch.randn(draws, len(s), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()
    noise = noise @ np.linalg.cholesky(mixed + 1e-9 * np.eye(len(s))).T
    drawn = np.clip(e + noise * d * math.sqrt(max(1.0, misfit)), 0, 1)
    many, floors, _ = _least(drawn, d, alphas, theory, floor)
    low, high = np.quantile(many, [0.05, 0.95])
    return AlphaFit(float(alpha[0]), float(low), float(high), float(under[0]), misfit, many, floors)


def forecast_pruning(
    curve: CurveTable,
    keeps: Sequence[float] = KEEPS,
    angle: float | None = None,
    floor: bool = False,
    seed: int = 0,
    wide: bool = True,
    probe: float = 1.0,
    pilot: PilotTable | None = None,
) -> PruningForecast:
    """Which samples to keep, hardest, easiest or random ones, by a learning curve, the theory and what a pilot measured.

    The data's place in the phase diagram is `fit_alpha` of the curve. The probe that scores is taken for a model trained
    on a share p of the samples: its angle to the truth is pi times its error, `pi eps(p alpha)`. Predicted errors are those
    of the theory in the units of the data, `(1 - 1/C) (f + (1 - f) 2 eps)`.

    What a real data set has in common with Gaussian inputs and a linear teacher is open. So the shape of the curve is
    checked, and where a pilot trained on the hardest and the easiest as well, that decides (`KeepForecast.choice`): a rule
    that erred less than random by two standard errors is kept; else the one that is clearly predicted best, unless it erred
    more than random. Between the shares of the pilot its errors are interpolated on the logarithm of the share; beyond
    them those of the nearest count.

    Args:
        curve: From `modicum.measurement.LearningCurve`.
        keeps: Shares in (0, 1) to forecast.
        angle: Of the probe, in radians, where it is known better.
        floor: Whether to fit an error that no number of samples removes.
        seed: Of the bootstrap.
        wide: Whether the diagram reaches from 0.25 to 256 samples per dimension; else it holds what the draws need.
        probe: The share p in (0, 1]. A score that is read after a share of the schedule comes from a model that is about as
            good as one trained on that share of the samples.
        pilot: From `modicum.selection.pruning_pilot.PruningPilot`, whose random curve this is.

    Raises:
        ModicumError: A share or the angle is out of range, or the curve cannot be read.

    Example:
        >>> import modicum
        >>> from modicum.measurement import LearningCurve
        >>> recipe = modicum.Recipe(model="linear", epochs=4)
        >>> curve = LearningCurve((0.1, 0.3), runs=2).measure(modicum.load("digits"), recipe, modicum.Context())
        >>> forecast_pruning(curve, (0.5,)).at(0.5).best
        'hardest'

    Reference:
        Sorscher, Geirhos, Shekhar, Ganguli, Morcos, Beyond neural scaling laws: beating power law scaling via data
        pruning, 2022, arXiv 2206.14486.
    """
    shares, errors = curve.shares.numpy(), curve.means.double().numpy()
    deviations = curve.deviations.double().numpy()
    fit = fit_alpha(
        *(shares, errors, deviations, curve.classes, floor),
        seed=seed,
        chance=curve.chance,
        correlation=curve.correlation.numpy(),
    )
    if angle is None:
        if not 0 < probe <= 1:
            raise ModicumError(f"probe={probe}; expected a share in (0, 1]")
        angle = math.pi * float(_random_error(np.array([probe * fit.alpha]))[0])
    if not keeps or not all(0 < keep < 1 for keep in keeps):
        raise ModicumError(f"keeps={tuple(keeps)}; expected shares in (0, 1)")
    least, most = float(min(fit.alpha, fit.draws.min())), float(max(fit.alpha, fit.draws.max()))
    if wide:
        least, most = min(0.25, least), max(256.0, most)
    alphas = np.clip(np.geomspace(least, most, 2 + math.ceil(2 * math.log2(most / least))), least, most)
    diagram = np.empty((len(alphas), len(keeps), 3))
    for column, keep in enumerate(keeps):
        for place, rule in enumerate(ORDERS):
            diagram[:, column, place] = pruning_theory(alphas, float(keep), angle, rule)
    rows = []
    for column, keep in enumerate(keeps):
        table = diagram[:, column]
        here = _at(alphas, table, np.array([fit.alpha]))[0]
        drawn = _at(alphas, table, fit.draws)
        # ties, as where all fail, go to the random subset, which needs no scores
        best = int(np.argmin(here - 1e-9 * (np.arange(3) == 0)))
        agree = np.argmin(drawn - 1e-9 * (np.arange(3) == 0), 1) == best
        sure = float((agree & (fit.draws > LEAST)).mean())  # a curve that is no better than guessing tells nothing
        told = curve.chance * (fit.floor + (1 - fit.floor) * 2 * here)
        random, hardest, easiest = told.tolist()
        turn = _crossing(alphas, table)
        tried = {} if pilot is None else _tried(pilot, float(keep))
        rows.append(KeepForecast(float(keep), random, hardest, easiest, ORDERS[best], sure, turn, **tried))
    return PruningForecast(fit, angle, curve.chance, tuple(rows), alphas, diagram, shares, errors, deviations, pilot)


def probe_of(method: Any) -> float:
    """The share of the schedule after which a score is read; 1 for a score that does not say.

    Example:
        >>> from modicum.methods import make
        >>> probe_of(make("el2n")), probe_of(make("knn-shapley"))
        (0.1, 1.0)
    """
    return float(getattr(method, "until", 1.0))


def _tried(pilot: PilotTable, keep: float) -> dict[str, Any]:
    """What the pilot measured at the share, or at the nearest that it tried."""
    shares = pilot.random.shares.numpy()
    at = float(np.clip(keep, shares[0], shares[-1]))
    errors, spread = {}, {}
    for rule in ORDERS:
        curve: CurveTable = getattr(pilot, rule)
        errors[rule], spread[rule] = (
            float(np.interp(math.log(at), np.log(shares), column.double().numpy()))
            for column in (curve.means, curve.deviations)
        )
    leads = {
        rule: (errors["random"] - errors[rule]) / math.hypot(spread["random"], spread[rule]) for rule in ORDERS[1:]
    }
    best = max(leads, key=lambda rule: leads[rule])
    proven = best if leads[best] >= LEAD and len(pilot.random.errors) > 1 else ""  # one run shows no spread
    return {"tried_at": at, **{f"tried_{rule}": error for rule, error in errors.items()}, "proven": proven}


def _spans(rows: Sequence[KeepForecast], words: Sequence[str]) -> list[tuple[str, str]]:
    """Neighboring shares with the same word, as text."""
    groups = [list(group) for _, group in groupby(zip(words, rows), key=lambda pair: pair[0])]
    found = []
    for group in groups:
        low, high = group[0][1].keep, group[-1][1].keep
        found.append((f"{100 * low:.3g} %" if low == high else f"{100 * low:.3g} to {100 * high:.3g} %", group[0][0]))
    return found


@lru_cache(maxsize=1)
def _table() -> tuple[NumPy, NumPy]:
    """Logarithms of alpha and of the theory's random error."""
    alphas = np.geomspace(LEAST / 100, MOST, 65)
    alphas[-1] = MOST
    return np.log(alphas), np.log(pruning_theory(alphas))


def _random_error(alphas: NumPy) -> NumPy:
    """The theory's error of random subsets, interpolated to four digits."""
    from scipy.interpolate import PchipInterpolator

    error: NumPy = np.exp(PchipInterpolator(*_table())(np.log(np.clip(alphas, LEAST / 100, MOST))))
    return error


def _least(errors: NumPy, deviations: NumPy, alphas: NumPy, theory: NumPy, floor: bool) -> tuple[NumPy, NumPy, NumPy]:
    """For each row of errors (k, p) the alpha, the floor and the sum of squares of the best fit; the floor is linear."""
    weights = deviations**-2
    free = 1 - theory  # (a, p); the model is theory + f free
    under = np.zeros((len(errors), len(alphas)))
    if floor:
        top = (errors * weights) @ free.T - ((theory * free) @ weights)
        under = np.clip(top / np.maximum((free**2) @ weights, 1e-300), 0.0, 0.95)
    # sum of squares, expanded so that nothing of size (k, a, p) is made
    cost = (errors**2 @ weights)[:, None] - 2 * (errors * weights) @ theory.T + (theory**2 @ weights)
    if floor:
        cost = cost - 2 * under * top + under**2 * (free**2 @ weights)
    best = np.argmin(cost, 1)
    rows = np.arange(len(errors))
    return alphas[best], under[rows, best], np.maximum(cost[rows, best], 0.0)


def _at(alphas: NumPy, table: NumPy, where: NumPy) -> NumPy:
    """(k, 3) errors between the places of the grid, on logarithmic axes."""
    x, logs = np.log(np.clip(where, alphas[0], alphas[-1])), np.log(table)
    errors: NumPy = np.exp(np.stack([np.interp(x, np.log(alphas), logs[:, column]) for column in range(3)], 1))
    return errors


def _crossing(alphas: NumPy, table: NumPy) -> float:
    """Where keeping the hardest overtakes keeping the easiest, on the grid."""
    gap = np.log(table[:, 1] / table[:, 2])
    turns = np.flatnonzero((gap[:-1] > 0) & (gap[1:] <= 0))
    if not len(turns):
        return math.nan
    i = int(turns[-1])
    share = gap[i] / (gap[i] - gap[i + 1])
    return float(np.exp(np.log(alphas[i]) + share * np.log(alphas[i + 1] / alphas[i])))
