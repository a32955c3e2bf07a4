import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.methods import make
from modicum.selection import HardBatchSampler, HardSamples
from modicum.training.fit import fit
from modicum.training.order import Shuffle, permutation
from modicum.training.recipe import Recipe


def data(n=40):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=draw)
    made = Dataset(x, x[:, :3].argmax(1), info=Info(classes=("a", "b", "c")))
    return Splits(made, made, made)


def test_visits_are_those_of_the_paper():
    # a scripted model: the table is 4 3 2 1 after the first round, and every visit takes off 2
    table = torch.tensor([4.0, 3.0, 2.0, 1.0])
    sampler, visits = HardBatchSampler(8, 2, epochs=2.5, shuffle=False), []
    for number in range(sampler.rounds):
        sampler.set_epoch(number)
        chosen = [batch[0] // 2 for batch in sampler]
        visits.append(chosen)
        if number:
            table[chosen] -= 2
        for b in chosen:
            sampler.observe(sampler.batches[b], table[b].expand(2))
    assert visits == [[0, 1, 2, 3], [0, 1], [0, 2], [1, 3]]
    assert sampler.table.tolist() == [0, -1, 0, -1]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(4, 80),
    size=st.integers(1, 4),
    epochs=st.floats(0.3, 6),
    delta=st.floats(0.05, 1),
    last=st.booleans(),
)
def test_exactly_as_many_updates_as_the_budget(n, size, epochs, delta, last):
    count = n // size if last else math.ceil(n / size)
    if math.floor(delta * count + 1e-9) < 1:
        return
    sampler = HardBatchSampler(n, size, epochs, delta, drop_last=last)
    updates = 0
    for number in range(sampler.rounds):
        sampler.set_epoch(number)
        batches = list(sampler)
        assert 0 < len(batches) == len(sampler) <= (count if number == 0 else max(1, int(delta * count + 1e-9)))
        updates += len(batches)
    assert updates == max(1, round(epochs * count))
    sampler.set_epoch(sampler.rounds)
    assert not list(sampler)
    assert not len(sampler.order(sampler.rounds)[0])


def test_delta_one_is_plain_training_on_fixed_batches_to_the_bit():
    splits, recipe = data(), Recipe(model="mlp(hidden=8)", epochs=4, batch_size=8, lr=0.1, shuffle=False)
    ours = fit(splits.train, recipe, sampler=HardSamples(delta=1.0).sampler(splits, recipe, Context()))
    plain = fit(splits.train, recipe, sampler=Shuffle(40, shuffle=False))
    for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_epoch_of_the_recipe_is_a_round_and_what_is_not_visited_stays_as_it_was():
    splits, recipe = data(), Recipe(model="mlp(hidden=8)", epochs=5, batch_size=8, lr=0.1)
    sampler = HardSamples(delta=0.4).sampler(splits, recipe, Context(seed=3))
    done = fit(splits.train, recipe, Context(seed=3), sampler=sampler)
    assert done.history["samples"] == [40, 16, 16, 16, 16]
    fresh = HardBatchSampler(40, 8, delta=0.4, seed=3)
    assert torch.equal(fresh.order(0)[0], permutation(40, 3, 0))
    fresh.observe(torch.arange(40), torch.rand(40, generator=torch.Generator().manual_seed(1)))
    before = fresh.table
    chosen = sorted(before.argsort(descending=True)[:2].tolist())
    assert fresh.order(1)[0].tolist() == torch.cat([fresh.batches[b] for b in chosen]).tolist()
    fresh.observe(fresh.batches[chosen[0]], torch.zeros(8))
    after = fresh.table
    assert after[chosen[0]] == 0
    assert (after != before).sum() == 1


def test_equal_updates_are_so_many_epochs():
    splits, (batches, plain, delta) = data(), (5, 4, 0.4)
    recipe = Recipe(model="linear", epochs=1 + (plain - 1) / delta, batch_size=8)
    done = fit(splits.train, recipe, sampler=HardSamples(delta=delta).sampler(splits, recipe, Context()))
    assert sum(done.history["samples"]) == plain * batches * 8


def test_a_batch_may_come_in_parts_and_left_over_samples_are_no_matter():
    sampler = HardBatchSampler(10, 4, shuffle=False)
    sampler.observe(torch.tensor([0, 1, 8]), torch.tensor([1.0, 2.0, 99.0]))
    sampler.observe(torch.tensor([2, 3]), torch.tensor([3.0, 6.0]))
    assert sampler.table.tolist() == [3.0, math.inf]
    assert len(HardBatchSampler(10, 4, drop_last=False).batches) == 3


def test_alone_in_a_loop_with_a_data_loader_and_resumed_in_the_middle():
    n, x = 24, torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.utils.data.TensorDataset(x, torch.arange(n))

    def run(stop=None):
        sampler, theta = HardBatchSampler(n, 4, epochs=3), torch.zeros(3, requires_grad=True)
        for number in range(sampler.rounds):
            if number == stop:
                other = HardBatchSampler(n, 4, epochs=3)
                other.load_state_dict(sampler.state_dict())
                sampler = other
            sampler.set_epoch(number)
            for a, i in torch.utils.data.DataLoader(rows, batch_sampler=sampler):
                (gradient,) = torch.autograd.grad(sampler.update(i, (a @ theta - i) ** 2), theta)
                theta = (theta - 0.01 * gradient).detach().requires_grad_()
        return theta

    assert torch.equal(run(), run(stop=3))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"delta": 0.0}, r"delta=0.0; expected a share in \(0, 1\]"),
        ({"delta": 1.5}, "delta=1.5"),
        (
            {"delta": 0.1},
            "delta=0.1 of 5 batches is less than one batch; expected at least 0.2, or a smaller batch_size",
        ),
        ({"batch_size": 11}, "batch_size=11; expected an integer from 1 to the 10 samples"),
        ({"n": 0}, "n=0; expected an integer >= 1"),
        ({"epochs": -1}, "epochs=-1; expected a number > 0, or None"),
    ],
)
def test_errors_name_the_argument(options, text):
    with pytest.raises(DataError, match=text):
        HardBatchSampler(**{"n": 10, "batch_size": 2, **options})


def test_losses_that_cannot_rank_are_refused():
    sampler = HardBatchSampler(8, 2, shuffle=False)
    with pytest.raises(DataError, match=r"losses has shape \(\) .*use reduction='none'"):
        sampler.observe(torch.arange(2), torch.tensor(1.0))
    with pytest.raises(DataError, match="epochs=None: this sampler has no end"):
        _ = sampler.rounds
    with pytest.raises(DataError, match="the saved state is for 4 batches; expected 5"):
        HardBatchSampler(10, 2).load_state_dict(sampler.state_dict())
    sampler.observe(torch.arange(8), torch.tensor([1.0, 1, math.nan, 1, 1, 1, 1, 1]))
    with pytest.raises(TrainingError, match="the loss of batch 1 is nan before round 1"):
        sampler.order(1)
    with pytest.raises(ModicumError, match=r"method 'hard-samples' option delta=0; expected a number in \(0, 1\]"):
        make("hard-samples(delta=0)")


def test_few_samples_are_one_batch_a_round():
    data = modicum.load("iris")
    recipe = Recipe(model="linear", epochs=2, batch_size=128)
    sampler = HardSamples(delta=0.25).sampler(data, recipe, Context())
    assert len(sampler.order(0)[0]) == len(sampler.order(1)[0]) == 90
