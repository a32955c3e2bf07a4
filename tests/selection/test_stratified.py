import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import BudgetError, DataError
from modicum.scores import Budget
from modicum.selection import stratified
from modicum.selection.stratified import allocate


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(sum), st.data())
def test_allocation_is_exact_and_covers_every_class(counts, data):
    counts = np.array(counts)
    k = data.draw(st.integers(1, int(counts.sum())))
    given_ = allocate(counts, Budget(keep=k))
    assert given_.sum() == k
    assert (given_ <= counts).all()
    assert (given_ >= 0).all()
    if k >= (counts > 0).sum():
        assert (given_[counts > 0] >= 1).all()
    share = k * counts / counts.sum()
    if (share[counts > 0] >= 1).all():
        assert (np.abs(given_ - share) < 1).all()


def test_largest_remainders():
    assert allocate(np.array([50, 30, 20]), Budget(keep=7)).tolist() == [4, 2, 1]  # shares 3.5, 2.1, 1.4
    assert allocate(np.array([97, 2, 1]), Budget(keep=5)).tolist() == [3, 1, 1]
    assert allocate(np.array([5, 0, 5]), Budget(per_class=3)).tolist() == [3, 0, 3]


def test_counts_and_nested_subsets():
    labels = np.random.default_rng(0).integers(0, 4, 300)
    before = set()
    for fraction in (0.02, 0.05, 0.1, 0.3, 0.7, 1.0):
        kept = stratified(labels, fraction, seeded())
        assert (
            np.bincount(labels[kept], minlength=4).tolist() == allocate(np.bincount(labels), Budget(fraction)).tolist()
        )
        assert before <= set(kept.tolist())
        before = set(kept.tolist())


def test_within_a_class_every_sample_is_drawn_equally_often():
    labels, generator = np.array([0] * 8 + [1] * 4), seeded()
    drawn = np.bincount(np.concatenate([stratified(labels, 0.5, generator) for _ in range(4000)]), minlength=12)
    # half of each class: 2000 of 4000 each, standard deviation 32
    assert np.abs(drawn - 2000).max() < 5 * 32


def test_same_kind():
    assert isinstance(stratified(torch.tensor([0, 1, 1]), 2, seeded()), torch.Tensor)
    assert stratified(np.array([0, 1, 1]), 2, seeded()).dtype == np.int64


def test_fewer_than_classes_warns():
    with pytest.warns(UserWarning, match="budget of 1 is less than the 2 classes"):
        assert len(stratified(np.array([0, 1, 1]), 1, seeded())) == 1


def test_errors():
    with pytest.raises(BudgetError, match="more than the 1 samples of class 0"):
        stratified(np.array([0, 1, 1]), "2/class", seeded())
    with pytest.raises(DataError, match="labels has dtype float64"):
        stratified(np.array([0.0, 1.0]), 1, seeded())
    with pytest.raises(DataError, match="labels has shape"):
        stratified(np.zeros(0, int), 1, seeded())
