import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.data.noise import corrupt_labels
from modicum.dataset import Dataset, Info
from modicum.errors import DataError


def data(n: int = 100, c: int = 4) -> Dataset:
    names = tuple("abcdefghij"[:c])
    return Dataset(torch.zeros(n, 1), torch.arange(n) % c, info=Info(classes=names))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60), st.integers(2, 6), st.floats(0, 1), st.sampled_from(["symmetric", "pair"]), st.integers(0, 99)
)
def test_exactly_so_many_are_wrong_and_the_mask_tells_which(n: int, c: int, rate: float, kind: str, seed: int) -> None:
    clean = data(n, c)
    noisy, changed = corrupt_labels(clean, rate, kind, seed=seed)  # type: ignore[arg-type]
    assert noisy.targets is not None
    assert clean.targets is not None
    assert int(changed.sum()) == round(rate * n)
    assert torch.equal(noisy.targets != clean.targets, changed)
    assert int(noisy.targets.min()) >= 0
    assert int(noisy.targets.max()) < c
    assert torch.equal(clean.targets, torch.arange(n) % c)
    assert noisy.ids is clean.ids
    if kind == "pair":
        assert torch.equal(noisy.targets[changed], (clean.targets[changed] + 1) % c)


def test_symmetric_noise_is_uniform_over_the_other_classes() -> None:
    clean = data(40_000, 4)
    noisy, _ = corrupt_labels(clean, 1.0)
    assert noisy.targets is not None
    confusion = torch.bincount(clean.labels * 4 + noisy.targets, minlength=16).reshape(4, 4) / 10_000
    torch.testing.assert_close(confusion, (1 - torch.eye(4)) / 3, rtol=0, atol=0.02)


def test_a_matrix_gives_its_frequencies_and_no_impossible_label() -> None:
    matrix = [[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]
    clean = data(30_000, 3)
    noisy, changed = corrupt_labels(clean, matrix=matrix)
    assert noisy.targets is not None
    confusion = torch.bincount(clean.labels * 3 + noisy.targets, minlength=9).reshape(3, 3) / 10_000
    torch.testing.assert_close(confusion, torch.tensor(matrix), rtol=0, atol=0.02)
    assert bool((confusion[torch.tensor(matrix) == 0] == 0).all())
    assert torch.equal(changed, noisy.targets != clean.targets)


def test_the_identity_matrix_changes_nothing_and_a_permutation_everything() -> None:
    clean = data(50)
    assert not corrupt_labels(clean, matrix=torch.eye(4))[1].any()
    noisy, changed = corrupt_labels(clean, matrix=torch.eye(4).roll(1, 1).numpy())
    assert changed.all()
    assert torch.equal(noisy.labels, (clean.labels + 1) % 4)


@pytest.mark.parametrize(
    "options", [{"rate": 0.5}, {"rate": 0.5, "kind": "pair"}, {"matrix": torch.full((4, 4), 0.25)}]
)
def test_a_function_of_the_seed_alone(options: dict) -> None:  # type: ignore[type-arg]
    before = torch.get_rng_state()
    one, two, other = (corrupt_labels(data(), **options, seed=seed)[0].labels for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "give rate or matrix and not both, got rate=None"),
        ({"rate": 0.1, "matrix": torch.eye(4)}, "give rate or matrix and not both"),
        ({"rate": 1.5}, r"rate=1.5; expected a share in \[0, 1\]"),
        ({"rate": float("nan")}, "rate=nan; expected"),
        ({"rate": 0.1, "kind": "asymmetric"}, "kind='asymmetric'; expected 'symmetric' or 'pair'"),
        ({"matrix": torch.eye(3)}, r"matrix has shape \(3, 3\); expected \(4, 4\)"),
        ({"matrix": torch.eye(4) * 2}, r"matrix row 0 is \[2.0, 0.0, 0.0, 0.0\] with sum 2; expected probabilities"),
    ],
)
def test_errors(options: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=message):
        corrupt_labels(data(), **options)


def test_errors_of_the_data() -> None:
    soft = Dataset(torch.zeros(4, 1), torch.full((4, 2), 0.5), info=Info(classes=("a", "b")))
    with pytest.raises(DataError, match="this data set has soft labels"):
        corrupt_labels(soft, 0.1)
    with pytest.raises(DataError, match=r"this data set has none \(task 'regression'\)"):
        corrupt_labels(Dataset(torch.zeros(4, 1), torch.rand(4), info=Info(task="regression")), 0.1)
    with pytest.raises(DataError, match=r"at least 2 classes in info\.classes, got 1"):
        corrupt_labels(data(4, 1), 0.1)
