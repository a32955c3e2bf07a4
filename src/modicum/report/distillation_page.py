"""The page of a synthetic set: what it is worth beside what costs nothing, what it looks like, and what it cost."""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modicum.report.content import DataSummary, Gallery
from modicum.report.costs import CostRow, cost_table, uncounted_text
from modicum.report.format import count, escape, plus_minus
from modicum.report.lines import Line, line_chart
from modicum.report.page import document, framed, none
from modicum.report.pictures import galleries
from modicum.report.tables import framed_table

__all__ = ["DistillationContent", "MomentRow", "TrialRow", "distillation_page"]

POINTS = 200  # of a curve
STEEP = 20.0  # ratio of the ends above which a curve is drawn by its logarithm
SCORES = {
    "label-robust": (
        "Label-robust score",
        "from 0 to 1; 0.27 where it gains on random samples what it misses of all data",
    ),
    "augmentation-robust": ("Augmentation-robust score", "from 0 to 1; 0.27 is no better than random real samples"),
    "improvement over random": ("Better than random", "points, both with the labels and the recipe of the set"),
    "hard label gap": ("Worse than all data", "points, both with hard labels"),
}


@dataclass(frozen=True)
class TrialRow:
    """Networks trained alike.

    Args:
        name: What they were trained on, or their architecture.
        meaning: In words.
        accuracies: On the test split in percent, one a network.
        own: Whether it is the set itself.
    """

    name: str
    meaning: str
    accuracies: tuple[float, ...]
    own: bool = False

    @property
    def mean(self) -> float:
        """Percent."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """In points, over networks; NaN of one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else math.nan


@dataclass(frozen=True)
class MomentRow:
    """The set at a moment of its making.

    Args:
        iteration: Steps that were taken.
        accuracy: Of a network trained on it, on the validation split in percent; NaN where none was.
        pictures: A picture of each class as PNG.
        chosen: Whether the set is what it was then.
    """

    iteration: int
    accuracy: float = math.nan
    pictures: tuple[bytes, ...] = ()
    chosen: bool = False


@dataclass(frozen=True)
class DistillationContent:
    """Everything on the page.

    Args:
        title: Of the page.
        sentence: The answer.
        detail: How sure it is, and what it cost.
        facts: Heading, number and explanation of the few numbers that matter.
        data: The data set.
        gallery: The samples by class; None for none.
        classes: Names of the classes that the moments show.
        moments: The set while it was made, in order.
        loss: Iterations and losses.
        loss_name: What the loss is called.
        trials: The set itself and what it has to beat.
        tested: Test samples.
        architectures: The set on other networks.
        robust: Scores that leave out what labels and augmentation bring.
        costs: The parts, and what they add up to as the last.
        uncounted: Operations without a FLOP formula.
        advice: What must be kept to when training on it.
        settings: Of the run.
        command: That repeats it.
        train_command: That trains on it.
    """

    title: str
    sentence: str
    detail: str
    facts: tuple[tuple[str, str, str], ...]
    data: DataSummary
    gallery: Gallery | None = None
    classes: tuple[str, ...] = ()
    moments: tuple[MomentRow, ...] = ()
    loss: tuple[tuple[float, float], ...] = ()
    loss_name: str = "loss"
    trials: tuple[TrialRow, ...] = ()
    tested: int = 0
    architectures: tuple[TrialRow, ...] = ()
    robust: Mapping[str, float] = field(default_factory=dict)
    costs: tuple[CostRow, ...] = ()
    uncounted: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    train_command: str = ""


def distillation_page(content: DistillationContent) -> str:
    """The HTML document of a synthetic set, complete in itself; it reads the same without scripts.

    Args:
        content: What to show; everything that a data set could have named is escaped.

    Returns:
        The text of an HTML file of at most about 3 MB; write it as UTF-8.

    Example:
        >>> found = DistillationContent("a page", "It is worth it.", "", (), DataSummary("digits", 10, 5, 5))
        >>> "It is worth it." in distillation_page(found)
        True
    """
    shown = content.gallery is not None and bool(content.gallery.items)
    advice = "".join(f"<li>{escape(line)}</li>" for line in content.advice)
    parts = {
        **framed(content),
        "set_text": "Made to be trained on, not to look like anything." if shown else "",
        "set": galleries([content.gallery]) if content.gallery and shown else none("There is nothing to look at."),
        "evolution_text": _evolution_text(content),
        "evolution": _evolution(content),
        "curves": _curves(content) or none("There are fewer than two moments to draw a line through."),
        "controls_text": _controls_text(content),
        "controls": _trials(content.trials, "trained on", "Test accuracy of networks trained alike")
        or none("Nothing was measured: the set was not judged."),
        "networks_text": _networks_text(content),
        "networks": _trials(content.architectures, "network", "Test accuracy of other networks trained on the set")
        or none("No other network was trained on the set."),
        "robust": _robust(content.robust),
        "cost_text": _cost_text(content),
        "cost": cost_table(content.costs),
        "train_text": "The folder holds the samples with the recipe that suits them. By any other recipe they may be worth much "
        "less.",
        "advice": f'<ul class="advice">{advice}</ul>' if advice else "",
        "train_command": escape(content.train_command),
    }
    names = {"set": "The set", "evolution": "Evolution", "controls": "Controls", "networks": "Networks", "cost": "Cost"}
    return document("distillation.html", parts, {**names, "settings": "Train on it"})


# -- how it came about -------------------------------------------------------------------------------------------------


def _evolution_text(content: DistillationContent) -> str:
    chosen = [m for m in content.moments if m.chosen]
    judged = any(math.isfinite(m.accuracy) for m in content.moments)
    text = "The first sample of each class, from the start to the end. " if _pictured(content) else ""
    if judged:
        text += "At each of these moments a network was trained on the set and tested on the validation split"
        text += f"; the best, after {count(chosen[0].iteration)} iterations, is the set. " if chosen else ". "
    return text


def _pictured(content: DistillationContent) -> bool:
    return bool(content.classes) and len(content.moments) > 1 and all(m.pictures for m in content.moments)


def _evolution(content: DistillationContent) -> str:
    if not _pictured(content):
        return ""
    heads = "".join(
        f'<th scope="col"{" class=chosen" if m.chosen else ""}>{count(m.iteration)}</th>' for m in content.moments
    )
    body = ""
    for row, name in enumerate(content.classes):
        cells = ""
        for moment in content.moments:
            told = escape(f"class {name} after {moment.iteration} iterations")
            data = base64.b64encode(moment.pictures[row]).decode("ascii")
            cells += f'<td><img src="data:image/png;base64,{data}" alt="{told}"></td>'
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    if any(math.isfinite(m.accuracy) for m in content.moments):
        cells = "".join(
            f"<td>{f'{m.accuracy:.1f}' if math.isfinite(m.accuracy) else '–'}</td>" for m in content.moments
        )
        body += f'<tr class="foot"><th scope="row">validation, %</th>{cells}</tr>'
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="The set while it was made">'
        '<table class="evolution"><caption>After so many iterations</caption>'
        f'<thead><tr><th scope="col">class</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _curves(content: DistillationContent) -> str:
    charts = []
    points = _thinned(content.loss)
    if len(points) > 1:
        x, y = [p[0] for p in points], [p[1] for p in points]
        steep = min(y) > 0 and max(y) / min(y) > STEEP
        heights = [math.log10(v) for v in y] if steep else y
        name = content.loss_name
        title = f"{name}, by its logarithm" if steep else name
        label = f"{name} from {y[0]:.3g} to {y[-1]:.3g} in {count(x[-1])} iterations"
        number = (lambda v: f"{10**v:.3g}") if steep else (lambda v: f"{v:.3g}")
        charts.append(line_chart(x, [Line(name, heights, "var(--gray)")], "iteration", title, number, count, label))
    moments = [m for m in content.moments if math.isfinite(m.accuracy)]
    if len(moments) > 1:
        y = [m.accuracy for m in moments]
        label = f"validation accuracy from {y[0]:.1f} % to {y[-1]:.1f} %, at best {max(y):.1f} %"
        lines = [Line("validation", y, "var(--accent)")]
        charts.append(
            line_chart(
                [float(m.iteration) for m in moments],
                lines,
                "iteration",
                "validation accuracy, %",
                lambda v: f"{v:.1f}",
                count,
                label,
                tick=lambda v: f"{v:.3g}",
            )
        )
    return "".join(charts)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of neighbors, so that there are not too many; what is not finite is left out."""
    finite = [p for p in points if math.isfinite(p[1])]
    size = max(1, math.ceil(len(finite) / POINTS))
    groups = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(g[-1][0], statistics.fmean(p[1] for p in g)) for g in groups]


# -- what it has to beat -----------------------------------------------------------------------------------------------


def _controls_text(content: DistillationContent) -> str:
    if not content.trials:
        return ""
    networks = max(len(row.accuracies) for row in content.trials)
    return (
        f"Up to {count(networks)} new network{'s' * (networks > 1)} for each row, trained from scratch by the recipe of the set "
        f"and tested once on {count(content.tested)} samples that nothing was chosen on. A number after ± is the standard "
        "deviation over networks."
    )


def _trials(rows: Sequence[TrialRow], head: str, caption: str) -> str:
    if not rows:
        return ""
    own = next((row for row in rows if row.own), None)
    told = any(row.meaning for row in rows)
    body = ""
    for row in rows:
        gap = "–" if own is None or row is own else f"{own.mean - row.mean:+.1f}"
        text = plus_minus(row.mean / 100, row.std / 100, "accuracy")
        cells = f"<td{' class=yes' if row.own else ''}>{text}</td>" + (f"<td>{gap}</td>" if own else "")
        cells += f"<td>{len(row.accuracies)}</td>"
        meaning = f"<br><small>{escape(row.meaning)}</small>" if row.meaning else ""
        body += f'<tr><th scope="row"{" class=told" if told else ""}>{escape(row.name)}{meaning}</th>{cells}</tr>'
    heads = [head, "accuracy", *(["the set is better by, points"] if own else []), "networks"]
    return framed_table(heads, body, caption)


def _networks_text(content: DistillationContent) -> str:
    if not content.architectures and not content.robust:
        return ""
    return (
        "A set is made with one network in mind. If others do much worse on it, it holds what that network wanted and not what "
        "the data are."
    )


def _robust(scores: Mapping[str, float]) -> str:
    if not scores:
        return ""
    body = ""
    for key, value in scores.items():
        name, meaning = SCORES.get(key, (key, ""))
        text = f"{value:.3f}" if key.endswith("robust") else f"{value:+.1f}"
        body += f'<tr><th scope="row" class="told">{escape(name)}<br><small>{escape(meaning)}</small></th><td>{text}</td></tr>'
    return framed_table(
        ["what the samples themselves bring", "value"], body, "What is left without soft labels and augmentation"
    )


# -- cost --------------------------------------------------------------------------------------------------------------


def _cost_text(content: DistillationContent) -> str:
    left = uncounted_text(content.uncounted)
    return f"{left} Testing and controls are no part of making the set; drawing this page is not counted."
