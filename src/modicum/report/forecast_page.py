"""The page of a forecast: the phase diagram with the data set on it, the pilot's learning curve, the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modicum.report.content import DataSummary
from modicum.report.format import escape, percent
from modicum.report.lines import Line, line_chart
from modicum.report.page import document, framed, none
from modicum.report.phases import phase_chart
from modicum.report.tables import plain_table

__all__ = ["ForecastContent", "forecast_page"]

COLORS = {"hardest": "var(--s1)", "easiest": "var(--s0)"}  # as in the diagram
RULES = {"random": "random samples", "hardest": "the hardest samples", "easiest": "the easiest samples"}


@dataclass(frozen=True, eq=False)
class ForecastContent:
    """Everything on the page.

    Args:
        title: Of the page.
        sentence: The answer.
        detail: How sure it is, and what it rests on.
        facts: Heading, number and explanation of the few numbers that matter.
        data: The data set.
        rows: One prediction for each share kept; see `modicum.selection.pruning_forecast.KeepForecast`.
        alphas: Grid of samples per dimension.
        diagram: (a, keeps, 3) theory errors of random, hardest, easiest.
        alpha: Low end, estimate and high end of the place of the data set.
        degrees: Angle of the scores.
        shares: Of the learning curve.
        errors: Its errors.
        deviations: Their standard errors.
        fitted: Errors of the fitted curve.
        tried: Rule, errors and standard errors of the trainings on the hardest and the easiest, where there were any.
        settings: Of the run.
        command: That repeats it.
    """

    title: str
    sentence: str
    detail: str
    facts: tuple[tuple[str, str, str], ...]
    data: DataSummary
    rows: Sequence[Any]
    alphas: tuple[float, ...]
    diagram: Any
    alpha: tuple[float, float, float]
    degrees: float
    shares: tuple[float, ...]
    errors: tuple[float, ...]
    deviations: tuple[float, ...]
    fitted: tuple[float, ...]
    tried: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


def forecast_page(content: ForecastContent) -> str:
    """The HTML document of a forecast, complete in itself; it works without scripts.

    Args:
        content: What to show; everything that a data set could have named is escaped.

    Returns:
        The text of an HTML file of 50 to 100 kB; write it as UTF-8.
    """
    parts = {
        **framed(content),
        "sentence": escape(_headline(content.rows)),
        "detail": escape(f"{content.sentence} {content.detail}"),
        "diagram_text": (
            "Each cell has the color of the rule with the least error in theory, stronger where it leads by more, for "
            f"scores at {content.degrees:.3g}° to the truth. The line is this data set, the band its 90 % interval. "
            "Keeping the hardest needs plenty of samples: below a half, the border moves right as less is kept."
        ),
        "diagram": phase_chart(content.alphas, [row.keep for row in content.rows], content.diagram, content.alpha),
        "curve_text": (
            "Error on the validation split after training on random subsets"
            + (", on the hardest and on the easiest" if content.tried else "")
            + "; the bands are one standard error. The dashed line is the theory's curve through that of the random "
            "subsets, from which the place on the diagram is read."
        ),
        "curve": _curve(content),
        "table_text": (
            "Errors of the data's own task as theory predicts them, and how many draws of the pilot's noise agree on "
            "the rule. Compare the rules with one another rather than with what a network will reach."
            + (
                " What the pilot measured decides where it differs: taken is a rule that erred less than random by two "
                "standard errors at this share, or at the nearest that was tried; else the one clearly predicted best, unless "
                "it erred more than random."
                if content.tried
                else ""
            )
        ),
        "table": _tables(content.rows) if content.rows else none("Nothing was asked for."),
    }
    sections = {"diagram": "Diagram", "curve": "Curve", "predictions": "Predictions", "settings": "Settings"}
    return document("forecast.html", parts, sections)


def _headline(rows: Sequence[Any]) -> str:
    if any(row.tried for row in rows):
        choices = {row.choice for row in rows}
        if len(choices) > 1:
            return "It depends on how much is kept"
        return f"Keep {RULES[choices.pop()]}"
    clear = [row for row in rows if row.clear]
    rules = {row.best for row in clear}
    if not clear:
        return "Which samples to keep is not clear from this pilot"
    if len(rules) > 1:
        return "It depends on how much is kept"
    return f"Theory says: keep {RULES[rules.pop()]}" + (
        "" if len(clear) == len(rows) else f" ({len(clear)} of {len(rows)} shares)"
    )


def _curve(content: ForecastContent) -> str:
    lines = [
        Line("random samples", content.errors, "var(--gray)", spread=content.deviations),
        *(Line(RULES[rule], errors, COLORS[rule], spread=spread) for rule, errors, spread in content.tried),
        Line("theory of random ones, fitted", content.fitted, "var(--text)", dash=True),
    ]
    last = f"{percent(content.errors[-1])} at {percent(content.shares[-1])} of the samples"
    # on a logarithmic axis, as learning curves are read
    places = np.log2(content.shares).tolist()
    return line_chart(
        places,
        lines,
        "share of the training samples",
        "error on the validation split",
        percent,
        lambda place: f"{100 * 2**place:.3g} %",
        f"Learning curve of the pilot: {percent(content.errors[0])} at {percent(content.shares[0])}, {last}.",
        tick=lambda error: f"{100 * error:.3g} %",
    )


def _tables(rows: Sequence[Any]) -> str:
    predicted, taken, heads = [], [], ("share kept", "random", "hardest", "easiest")
    for row in rows:
        share, best = f"{100 * row.keep:.3g} %", row.best if row.clear else f"{row.best}, not clear"
        errors = (percent(error) for error in (row.random, row.hardest, row.easiest))
        predicted.append(
            dict(zip((*heads, "predicted best", "draws that agree"), (share, *errors, best, f"{100 * row.sure:.0f} %")))
        )
        errors = (percent(error) for error in (row.tried_random, row.tried_hardest, row.tried_easiest))
        cells = (share, row.choice, f"{100 * row.tried_at:.3g} %", *errors, row.why)
        taken.append(dict(zip(("share kept", "take", "tried at", *heads[1:], "because"), cells)))
    text = plain_table(predicted, "Predicted errors")
    if any(row.tried for row in rows):
        text = plain_table(taken, "What to take, and the errors of the pilot") + text
    return text
