import numpy as np
import pytest
import torch

from modicum.dataset import Dataset
from modicum.errors import BudgetError, DataError
from modicum.selection import random_subset


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_sample_is_drawn_equally_often():
    from scipy.stats import chi2

    n, k, draws = 20, 5, 10_000
    generator = seeded()
    counts = torch.bincount(torch.cat([random_subset(n, k, generator) for _ in range(draws)]), minlength=n).double()
    # inclusion without replacement has variance k/n (1 - k/n); the statistic has n - 1 degrees of freedom
    statistic = float(((counts - draws * k / n) ** 2).sum() / (draws * k / n * (1 - k / n)) * (n - 1) / n)
    assert chi2.ppf(0.0005, n - 1) < statistic < chi2.ppf(0.9995, n - 1)


def test_no_sample_twice_and_smaller_is_a_prefix_of_larger():
    large = random_subset(50, 30, seeded())
    assert len(large.unique()) == 30
    assert torch.equal(random_subset(50, 0.2, seeded()), large[:10])


def test_takes_a_dataset():
    assert len(random_subset(Dataset(torch.zeros(10, 1)), "50%", seeded())) == 5


def test_errors():
    with pytest.raises(BudgetError, match="asks for 11 samples, but there are 10"):
        random_subset(10, 11, seeded())
    with pytest.raises(DataError, match="samples=0"):
        random_subset(0, 1, seeded())
    assert np.array_equal(random_subset(3, 3, seeded()).sort().values, np.arange(3))
