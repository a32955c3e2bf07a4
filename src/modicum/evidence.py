"""What a method promises, measured: claims that run on real data, and the command that runs them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Claim"]


@dataclass(frozen=True)
class Claim:
    """One promise and what came out.

    Args:
        claim: The promise in one sentence.
        measured: Mean of what was measured.
        deviation: Its standard deviation over the runs.
        n: Number of runs.
        baseline: The same number for what a user would do instead.
        holds: Whether the promise holds here.
        unit: Of measured, deviation and baseline.
        cost_seconds: What measuring took.
    """

    claim: str
    measured: float
    deviation: float
    n: int
    baseline: float
    holds: bool
    unit: str
    cost_seconds: float
