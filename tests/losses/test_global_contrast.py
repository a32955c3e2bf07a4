import math

import pytest
import torch

from modicum.errors import TrainingError
from modicum.losses.global_contrast import check_indices, global_contrast


def test_the_estimate_moves_by_gamma_and_counts_in_full_at_the_first_visit():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 3, generator=g, dtype=torch.float64), torch.randn(4, 3, generator=g, dtype=torch.float64)
    t = torch.full((4,), 0.2, dtype=torch.float64)
    never = torch.full((4,), -torch.inf, dtype=torch.float64)
    u = global_contrast(a, b, never, t, 0.3)[1].exp()
    z = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
    others = [[j for j in range(8) if j % 4 != i % 4] for i in range(8)]
    mean = torch.stack([(z[i] @ z[others[i]].T / 0.2).exp().mean() for i in range(8)]).reshape(2, 4).mean(0)
    torch.testing.assert_close(u, mean)
    old = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(global_contrast(a, b, old.log(), t, 0.3)[1].exp(), 0.7 * old + 0.3 * mean)
    torch.testing.assert_close(global_contrast(a, b, old.log(), t, 1.0)[1].exp(), mean)


def test_a_small_temperature_does_not_overflow():
    a = torch.tensor([[1.0, 0.0], [1.0, 1e-3], [0.0, 1.0]])  # exp(1 / 0.001) is infinite in any precision
    losses, log_u, derivative = global_contrast(a, a, torch.full((3,), -torch.inf), torch.full((3,), 1e-3), 0.8)
    assert bool(losses.isfinite().all())
    assert float(log_u[0]) == pytest.approx(1000 - math.log(2), abs=1)
    assert bool(derivative.isfinite().all())


@pytest.mark.parametrize(
    "indices, text",
    [
        (torch.tensor([0, 1]), r"indices have shape \(2,\) and type torch.int64; expected \(3,\) integers"),
        (torch.zeros(3), r"indices have shape \(3,\) and type torch.float32; expected \(3,\) integers"),
        (torch.tensor([0, -1, 2]), "indices range from -1 to 2; expected positions in the 9 samples, 0 to 8"),
        (torch.tensor([0, 9, 2]), "indices range from 0 to 9; expected positions in the 9 samples, 0 to 8"),
        (torch.tensor([4, 1, 4]), "indices hold 4 more than once; expected every image of a batch to be a different"),
    ],
)
def test_wrong_indices(indices, text):
    with pytest.raises(TrainingError, match=text):
        check_indices(indices, 3, 9)
