"""Every test draws the same numbers each time, whatever ran before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def same_numbers() -> Iterator[None]:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    yield
    torch.set_rng_state(state)
