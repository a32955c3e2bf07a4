import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.data import concatenate
from modicum.dataset import Dataset, Info
from modicum.errors import DataError
from modicum.ledger import epochs_elapsed
from modicum.training.fit import fit
from modicum.training.order import Mixture, Shuffle, permutation
from modicum.training.recipe import Recipe


def mixture_of(sizes, classes=2):
    draw = torch.Generator().manual_seed(0)
    info = Info(classes=tuple("abcdef"[:classes]))
    parts = {
        f"s{i}": Dataset(torch.randn(n, 3, generator=draw), torch.arange(n) % classes, info=info)
        for i, n in enumerate(sizes)
    }
    return concatenate(parts)


@given(n=st.integers(1, 200), seed=st.integers(0, 10**9), epoch=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_permutation_is_a_pure_function_that_visits_all_once(n, seed, epoch):
    first = permutation(n, seed, epoch)
    torch.manual_seed(epoch + 1)
    assert torch.equal(first, permutation(n, seed, epoch))
    assert torch.equal(first.sort().values, torch.arange(n))


def test_permutation_differs_by_seed_and_by_epoch_and_leaves_the_global_state():
    before = torch.get_rng_state()
    orders = {tuple(permutation(50, s, e).tolist()) for s in range(4) for e in range(4)}
    assert len(orders) == 16
    assert torch.equal(before, torch.get_rng_state())


def test_shuffle_visits_all_once_without_weights_or_state():
    sampler = Shuffle(17, seed=3)
    positions, weights = sampler.order(5)
    assert torch.equal(positions, permutation(17, 3, 5))
    assert weights is None
    sampler.observe(positions, torch.zeros(17))
    assert sampler.state_dict() == {}


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    weights=st.lists(st.floats(0, 10), min_size=6, max_size=6),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_mixture_gives_each_source_its_share(sizes, weights, seed):
    weights = weights[: len(sizes)]
    if sum(weights) <= 1e-3:
        weights[0] = 1.0
    data = mixture_of(sizes)
    sampler = Mixture(data, {f"s{i}": w for i, w in enumerate(weights)}, seed)
    seen = torch.zeros(len(sizes))
    streams = [[] for _ in sizes]
    for epoch in range(7):
        positions, none = sampler.order(epoch)
        assert none is None
        assert len(positions) == len(data)
        seen += torch.bincount(data.sources[positions], minlength=len(sizes))
        exact = torch.tensor([w / sum(weights) * len(data) * (epoch + 1) for w in weights])
        assert (seen - exact).abs().max() < 1 + 1e-3
        for source in range(len(sizes)):
            streams[source] += positions[data.sources[positions] == source].tolist()
    for source, stream in enumerate(streams):
        # seen as often as any other of its source, or once more: passes without replacement
        counts = torch.bincount(torch.tensor(stream, dtype=torch.int64), minlength=len(data))[data.sources == source]
        assert counts.max() - counts.min() <= 1


def test_mixture_passes_go_on_where_the_epoch_before_left_them():
    data = mixture_of([6, 30])
    sampler = Mixture(data, {"s0": 1, "s1": 3}, seed=1)  # 9 of 36 an epoch: one pass and a half of the first source
    epochs = [sampler.order(e)[0] for e in range(2)]
    small = [positions[positions < 6] for positions in epochs]
    assert [len(s) for s in small] == [9, 9]
    assert torch.bincount(torch.cat(small)).tolist() == [3] * 6
    assert torch.equal(epochs[1], Mixture(data, {"s0": 2, "s1": 6}, seed=1).order(1)[0])
    assert not torch.equal(epochs[1], Mixture(data, {"s0": 1, "s1": 3}, seed=2).order(1)[0])


def test_mixture_with_a_single_source_is_every_sample_once():
    data = mixture_of([13])
    assert torch.equal(Mixture(data, {"s0": 5}).order(3)[0].sort().values, torch.arange(13))


def test_a_source_of_weight_zero_is_never_drawn_even_when_it_is_empty():
    data = mixture_of([4, 6])
    for part in (data, data[data.sources == 1]):
        positions, _ = Mixture(part, {"s0": 0, "s1": 1}).order(0)
        assert (part.sources[positions] == 1).all()
        assert len(positions) == len(part)


@pytest.mark.parametrize(
    "weights, text",
    [
        ({"s0": 1}, r"weights=\{'s0': 1\}; expected one number >= 0 for each of \('s0', 's1'\)"),
        ({"s0": 1, "s1": 1, "web": 1}, "expected one number >= 0 for each"),
        ({"s0": 1, "s1": -1}, "'s1': -1"),
        ({"s0": 0, "s1": 0}, "'s0': 0"),
        ({"s0": 1, "s1": float("nan")}, "'s1': nan"),
        ({"s0": 1, "s1": float("inf")}, "'s1': inf"),
        ({}, "expected one number >= 0 for each"),
    ],
)
def test_mixture_refuses_wrong_weights(weights, text):
    with pytest.raises(DataError, match=text):
        Mixture(mixture_of([4, 6]), weights)


def test_mixture_needs_sources_that_have_samples():
    plain = Dataset(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), info=Info(classes=("a",)))
    with pytest.raises(DataError, match=r"needs the column `sources`; `modicum.data.concatenate` makes one"):
        Mixture(plain, {"a": 1})
    data = mixture_of([4, 6])
    with pytest.raises(DataError, match="source 's0' has weight 2 but no samples; give it weight 0"):
        Mixture(data[data.sources == 1], {"s0": 2, "s1": 1})


@pytest.mark.parametrize("weights", [{"s0": 3, "s1": 1}, {"s0": 1, "s1": 3}])
@pytest.mark.parametrize("epochs", [1, 4, 2.4])
def test_ledger_of_a_fit_on_a_mixture_has_the_epochs_elapsed(weights, epochs):
    data, ctx = mixture_of([8, 32]), Context()
    recipe = Recipe(model="linear", epochs=epochs, batch_size=8, lr=0.01)
    done = fit(data, recipe, ctx, sampler=Mixture(data, weights, seed=ctx.seed))
    expected = epochs_elapsed({"s0": 8, "s1": 32}, {k: w / 4 for k, w in weights.items()}, 40 * epochs)
    assert done.ledger.total().samples == 40 * epochs
    exact = 0 if epochs == int(epochs) else 1.0  # the order inside a broken epoch is random
    assert ctx.ledger.epochs() == pytest.approx(expected, rel=0.3 * exact, abs=1e-12)


def test_ledger_of_plain_training_on_a_mixture_counts_every_source_once_an_epoch():
    data = mixture_of([8, 32])
    done = fit(data, Recipe(model="linear", epochs=3, batch_size=7, lr=0.01))
    assert done.ledger.epochs() == {"s0": 3.0, "s1": 3.0}
