import math

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.ledger import Ledger
from modicum.selection import AdaptiveSelection
from modicum.selection.adaptive_selection import METHODS
from modicum.store import Store
from modicum.training.fit import fit
from modicum.training.order import permutation
from modicum.training.recipe import Recipe

N = 90
RECIPE = Recipe(model="mlp(hidden=8, layers=1)", epochs=9, batch_size=8, lr=0.05)


def made(spoiled=False):
    draw = np.random.default_rng(0)
    y = torch.arange(N) % 3
    x = torch.from_numpy(draw.normal(size=(N, 4)).astype(np.float32)) + y[:, None]
    data = Dataset(x * math.inf if spoiled else x, y, info=Info(classes=("a", "b", "c")))
    return Splits(data, data[:12], data[:12])


class Seen:
    """A recorder of the positions of every epoch."""

    def __init__(self):
        self.epochs = {}

    def record(self, epoch, indices, outputs, losses):
        self.epochs.setdefault(epoch, []).append(indices.clone())

    def end_epoch(self, epoch, model):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def trained(method, **options):
    ctx, seen = Context(ledger=Ledger()), Seen()
    made_by = AdaptiveSelection(method=method, **{"keep": 0.4, "every": 3, **options})
    sampler = made_by.sampler(made(), RECIPE, ctx)
    done = fit(made().train, RECIPE, Context(), sampler=sampler, recorder=seen)
    return done, {epoch: torch.cat(parts) for epoch, parts in seen.epochs.items()}, ctx, sampler


@pytest.mark.parametrize("method", METHODS)
class TestMethods:
    def test_full_epochs_first_then_a_part_that_is_chosen_anew(self, method):
        done, seen, _, sampler = trained(method)
        assert sampler.full == round(0.5 * 0.4 * 9) == 2
        assert [len(seen[epoch]) for epoch in range(2)] == [N, N]
        if method != "gradmatch-pb":
            assert [len(seen[epoch]) for epoch in range(2, 9)] == [36] * 7
        else:  # of 12 batches, the last of which has two samples, five
            assert {len(seen[epoch]) for epoch in range(2, 9)} <= {40, 34}
        sets = [frozenset(seen[epoch].tolist()) for epoch in range(2, 9)]
        assert sets[0] == sets[1] == sets[2]
        assert sets[3] == sets[4] == sets[5]
        assert len({sets[0], sets[3], sets[6]}) > 1
        assert not torch.equal(seen[2], seen[3])
        assert done.history["samples"][2] < N

    def test_three_choices_are_charged(self, method):
        _, _, ctx, _ = trained(method)
        assert [charge.phase for charge in ctx.ledger.charges] == ["choose"] * 3
        for charge in ctx.ledger.charges:
            assert charge.samples == N + (12 if method == "glister" else 0)
            assert charge.forward_flops > 0
            assert charge.extra_flops > 0
            assert charge.what == f"adaptive-selection by {method}"

    def test_weights_have_mean_one_and_the_model_is_as_it_was(self, method):
        data, ctx = made(), Context(ledger=Ledger())
        sampler = AdaptiveSelection(method=method, keep=0.4).sampler(data, RECIPE, ctx)
        model = fit(data.train, RECIPE, Context(), stop_after=2).model.train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        sampler.end_epoch(1, model)
        assert model.training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        positions, weights = sampler.order(2)
        assert len(positions.unique()) == len(positions)
        assert (weights is None) == (method == "glister")
        if weights is not None:
            assert abs(float(weights.mean()) - 1) < 1e-6
            assert bool((weights > 0).all())
        assert sorted(sampler.order(3)[0].tolist()) == sorted(positions.tolist())

    def test_interrupted_and_resumed_equals_uninterrupted(self, method, tmp_path):
        class Stop(Exception):
            pass

        class Interrupting(Seen):
            def end_epoch(self, epoch, model):
                if epoch == 4:
                    raise Stop

        whole, _, ledger, _ = trained(method)
        options = AdaptiveSelection(method=method, keep=0.4, every=3)
        store = Store(tmp_path / "run")

        def part(recorder, ctx):
            inner = Context(store=store, checkpoint_seconds=0)
            return fit(made().train, RECIPE, inner, sampler=options.sampler(made(), RECIPE, ctx), recorder=recorder)

        recorder = Seen()
        recorder.__class__ = type("Seen", (Seen,), {"end_epoch": Interrupting.end_epoch})
        with pytest.raises(Stop):
            part(recorder, Context(ledger=Ledger()))
        after = Context(ledger=Ledger())
        resumed = part(type("Seen", (Seen,), {})(), after)
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, resumed.model.state_dict()[name])
        assert len(after.ledger.charges) == len(ledger.ledger.charges)
        total, other = after.ledger.total(), ledger.ledger.total()
        assert (total.forward_flops, total.extra_flops) == (other.forward_flops, other.extra_flops)


def test_without_warm_start_it_begins_with_a_random_part_of_every_class():
    sampler = AdaptiveSelection(keep=0.4, warm=0.0).sampler(made(), RECIPE, Context())
    positions, weights = sampler.order(0)
    assert weights is None
    assert np.bincount(made().train.targets[positions]).tolist() == [12, 12, 12]
    sampler.end_epoch(0, fit(made().train, RECIPE, Context(), stop_after=1).model)
    assert sampler.order(1)[1] is not None


def test_it_chooses_when_it_is_time_and_not_at_the_end():
    ctx = Context(ledger=Ledger())
    sampler = AdaptiveSelection(keep=0.4, every=3).sampler(made(), RECIPE, ctx)
    model = fit(made().train, RECIPE, Context(), stop_after=1).model
    times = []
    for epoch in range(9):
        before = len(ctx.ledger.charges)
        sampler.end_epoch(epoch, model)
        times += [epoch] * (len(ctx.ledger.charges) - before)
    assert times == [1, 4, 7]


def test_everything_is_kept_of_all():
    sampler = AdaptiveSelection(keep=1.0, warm=0.0, method="craig").sampler(made(), RECIPE, Context())
    sampler.end_epoch(0, fit(made().train, RECIPE, Context(), stop_after=1).model)
    positions, weights = sampler.order(1)
    assert torch.equal(positions.sort().values, torch.arange(N))
    assert weights.unique().tolist() == [1.0]


def test_batches_stay_whole():
    sampler = AdaptiveSelection(keep=0.4, method="gradmatch-pb").sampler(made(), RECIPE, Context())
    sampler.end_epoch(1, fit(made().train, RECIPE, Context(), stop_after=2).model)
    chosen = {frozenset(part.tolist()) for part in torch.split(sampler.positions, 8)}
    for epoch in (2, 3):
        positions, weights = sampler.order(epoch)
        assert {frozenset(part.tolist()) for part in torch.split(positions, 8)} == chosen
        assert all(len(part.unique()) == 1 for part in torch.split(weights, 8))


def test_plain_until_the_warm_start_is_over():
    sampler = AdaptiveSelection(keep=0.4).sampler(made(), RECIPE, Context(seed=3))
    for epoch in range(2):
        positions, weights = sampler.order(epoch)
        assert torch.equal(positions, permutation(N, 3, epoch))
        assert weights is None


def test_a_diverged_model_is_told():
    sampler = AdaptiveSelection(keep=0.4).sampler(made(), RECIPE, Context())
    model = fit(made().train, RECIPE, Context(), stop_after=1).model
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(DataError, match="gradients of the current model are not finite: the training run has diverged"):
        sampler.end_epoch(1, model)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"keep": 0.0}, r"option keep=0.0; expected a number in \(0, 1\]"),
        ({"every": 0}, "option every=0; expected an integer > 0"),
        ({"warm": 1.5}, r"option warm=1.5; expected a number in \[0, 1\]"),
        ({"method": "best"}, "option method='best'; expected 'gradmatch', 'gradmatch-pb', 'craig', 'glister'"),
    ],
)
def test_errors_name_the_option(options, text):
    with pytest.raises(ModicumError, match=text):
        AdaptiveSelection(**options)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_any_loss_chooses_all_the_same(method):
    data = made()
    sampler = AdaptiveSelection(method=method, keep=0.4, warm=0.0).sampler(data, RECIPE, Context())

    class Sure(torch.nn.Module):
        """Answers right, so surely that every gradient is zero to the bit."""

        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(3, 3)

        def features(self, x):
            classes = {
                tuple(row.tolist()): c for row, c in zip(data.train.prepare(data.train.inputs), data.train.labels)
            }
            return torch.nn.functional.one_hot(torch.stack([classes[tuple(row.tolist())] for row in x]), 3).float()

        def forward(self, x):
            return self.last(self.features(x))

    model = Sure()
    model.last.weight.data, model.last.bias.data = 1e4 * torch.eye(3), torch.zeros(3)
    sampler.end_epoch(0, model)
    positions, weights = sampler.order(1)
    assert len(positions.unique()) == len(positions) >= 34
    assert weights is None or bool(weights.isfinite().all())
