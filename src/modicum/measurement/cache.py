"""Measurements by content: made once, charged in full to every reader."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modicum.context import Context
from modicum.ledger import Ledger
from modicum.spec import content_key
from modicum.store import Store

__all__ = ["cached"]

Measured = dict[str, Tensor]


def cached(
    kind: str, description: object, ctx: Context, make: Callable[[Context], Measured], name: str = "measured"
) -> tuple[Measured, Ledger]:
    """Tensors from the cache, or made now and kept.

    Args:
        kind: Of measurement; the folder in the cache.
        description: All that the result depends on (data, recipe, seed, options).
        ctx: Its cache folder; without one nothing is kept.
        make: Makes the tensors with the context it is given, whose ledger is charged and whose store holds checkpoints.
        name: Of the file, where one description has several results.

    Returns:
        The tensors, and what the run that made them cost.
    """
    if ctx.cache is None:
        inner = ctx.with_(ledger=Ledger(), store=None)
        return make(inner), inner.ledger
    where = torch.device(ctx.device).type
    store = Store(ctx.cache / kind / content_key(kind, description, where, torch.__version__))
    with store.locked(wait=True):
        if not (store.has(f"{name}.safetensors") and store.has(f"{name}.json")):
            inner = ctx.with_(ledger=Ledger(), store=store)
            store.write_tensors(f"{name}.safetensors", make(inner))
            store.write_json(f"{name}.json", {"ledger": inner.ledger.to_json()})
            for state in [file for file in store.names() if file.endswith(".state")]:
                store.remove(state)
        ledger = Ledger.from_json(store.read_json(f"{name}.json")["ledger"])
        return store.read_tensors(f"{name}.safetensors"), ledger
