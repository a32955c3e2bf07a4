"""What a run keeps of the first seed, so that its page and its audit need no second look at the data."""

from __future__ import annotations

import re

import numpy as np

from modicum.comparison.prepare import Plan
from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.scores import Budget, Scores
from modicum.store import Store

__all__ = ["keep_for_report", "kept_scores", "kept_synthetic"]


def keep_for_report(plan: Plan, method: str, budget: Budget | None, ctx: Context) -> None:
    """Write the scores or the synthetic samples of a plan to the run folder; others leave nothing."""
    assert ctx.store is not None
    if plan.scores is not None:
        _write_scores(ctx.store, f"scores-{_slug(method)}.parquet", method, plan.scores)
    elif plan.made is not None:
        assert plan.dataset.targets is not None
        name = f"synthetic-{_slug(f'{method} {budget}')}.safetensors"
        ctx.store.write_tensors(name, {"inputs": plan.dataset.inputs, "targets": plan.dataset.targets})
        ctx.store.write_json(name.replace(".safetensors", ".json"), {"name": f"{method} at {budget}"})


def kept_scores(store: Store) -> dict[str, Scores]:
    """Scores of the first seed by method."""
    import json

    found = {}
    for name in store.names():
        if name.startswith("scores-"):
            table = store.read_table(name)
            about = json.loads(table.schema.metadata[b"modicum"])
            ids = np.asarray(table["id"].to_pylist())
            found[about["name"]] = Scores(
                table["score"].to_numpy(), ids, about["method"], about["kind"], about["unit"], order=about["order"]
            )
    return found


def kept_synthetic(store: Store, data: Splits) -> dict[str, Dataset]:
    """What was distilled with the first seed, by method and budget."""
    found = {}
    for name in store.names():
        if name.startswith("synthetic-") and name.endswith(".safetensors"):
            tensors = store.read_tensors(name)
            about = store.read_json(name.replace(".safetensors", ".json"))
            found[about["name"]] = Dataset(tensors["inputs"], tensors["targets"], info=data.train.info)
    return found


def _write_scores(store: Store, name: str, method: str, scores: Scores) -> None:
    import json

    import pyarrow as pa

    if store.has(name):
        return
    about = {"name": method, "method": scores.method, "kind": scores.kind, "unit": scores.unit, "order": scores.order}
    rank = np.empty(len(scores), dtype=np.int64)
    rank[scores.ranking()] = np.arange(len(scores))
    table = pa.table({"id": scores.ids, "score": scores.values, "rank": rank})
    store.write_table(name, table.replace_schema_metadata({"modicum": json.dumps(about)}))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
