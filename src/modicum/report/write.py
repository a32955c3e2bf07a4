"""The page and the tables of a comparison, written into its folder."""

from __future__ import annotations

from modicum.comparison.frontier import Frontier
from modicum.comparison.keep import kept_scores, kept_synthetic
from modicum.dataset import Splits
from modicum.report.assemble import assemble
from modicum.report.page import page
from modicum.spec import content_key
from modicum.store import Store

__all__ = ["write_report"]


def write_report(frontier: Frontier, data: Splits, store: Store) -> None:
    """Write `report.html` and `points.parquet`, unless they show these points already.

    Args:
        frontier: What the comparison found.
        data: The splits that it was run on.
        store: Its folder.
    """
    settings = store.read_json("run.json")
    shows = content_key([point.to_json() for point in frontier.points], frontier.recommendation.sentence)
    if store.has("report.html") and settings.get("shows") == shows:
        return
    store.write_table("points.parquet", frontier.table())
    content = assemble(frontier, data, kept_scores(store), kept_synthetic(store, data), settings)
    store.write("report.html", page(content).encode())
    store.write_json("run.json", {**settings, "shows": shows, "finished": frontier.finished})
