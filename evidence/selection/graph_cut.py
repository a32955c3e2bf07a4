"""Graph cut picks typical samples: better than random ones where very few are kept, worse where more are."""

from __future__ import annotations

from submodular_of import against_stratified

from modicum.evidence import Claim

METHOD = "graph-cut(encoder='inputs')"


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    few = "with 3 digits of each class kept it beats random ones of every class"
    more = "with 10 digits of each class kept it is worse than random ones of every class: it repeats what is typical"
    return [against_stratified(METHOD, 3, few, seeds), against_stratified(METHOD, 10, more, seeds, better=False)]
