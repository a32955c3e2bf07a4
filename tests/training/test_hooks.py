"""What an objective may have besides being called: labels, begin, after, mode."""

import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import TrainingError
from modicum.store import Store
from modicum.training.fit import fit
from modicum.training.order import Shuffle
from modicum.training.recipe import Recipe

RECIPE = Recipe(model=lambda: nn.Linear(3, 2), epochs=2, batch_size=4, lr=0.1, weight_decay=0.0)


def unlabeled(n=12):
    return Dataset(torch.rand(n, 3, generator=torch.Generator().manual_seed(0)), info=Info("unlabeled"))


class Objective:
    """Counts what it is told."""

    labels = False
    description = "counting"

    def __init__(self, switch_at=10**9):
        self.begun = self.updates = self.calls = 0
        self.positions, self.switch_at = [], switch_at

    def __call__(self, model, inputs, targets, indices):
        self.positions.append((targets.tolist(), indices.tolist()))
        outputs = model(inputs)
        if self.mode(model) == "twice":
            outputs = outputs + model(inputs)
        self.calls += 1
        return outputs.square().sum(1), outputs

    def begin(self, model, batches):
        self.begun += 1
        self.seen = [(at.tolist(), tuple(model(x).shape)) for at, x in batches(5)]

    def mode(self, model):
        return "twice" if self.calls > self.switch_at else ""

    def after(self, model):
        self.updates += 1


def test_targets_are_positions_where_no_labels_are_read():
    objective = Objective()
    done = fit(unlabeled(), RECIPE, objective=objective)
    assert all(targets == indices for targets, indices in objective.positions)
    assert done.ledger.total().labels == 0
    assert (objective.begun, objective.updates, objective.calls) == (1, 6, 6)


def test_without_targets_an_objective_that_reads_labels_is_refused():
    with pytest.raises(TrainingError, match="dataset has no targets"):
        fit(unlabeled(), RECIPE)


def test_the_first_pass_is_charged_once():
    objective = Objective()
    done = fit(unlabeled(), RECIPE, objective=objective)
    assert [shape for _, shape in objective.seen] == [(5, 2), (5, 2), (2, 2)]
    positions = [p for at, _ in objective.seen for p in at]
    assert sorted(positions) == list(range(12)) != positions  # shuffled: data often come class by class
    total = done.ledger.total()
    assert total.samples == 12 + 24
    assert total.forward_flops == 2 * 3 * 2 * (12 + 24)


def test_steps_of_another_mode_are_counted_anew():
    one, two = (fit(unlabeled(), RECIPE, objective=Objective(at)).ledger.total().forward_flops for at in (10, 2))
    assert two - one == 2 * 3 * 2 * 4 * 3  # three of the six steps go forward twice


def test_an_interrupted_run_does_not_begin_again(tmp_path):
    class Stopping(Objective):
        def after(self, model):
            super().after(model)
            if self.updates == 3:
                raise KeyboardInterrupt

    def ctx():
        return Context(store=Store(tmp_path), checkpoint_seconds=0)

    class Known(Objective):
        pass

    Known.__qualname__ = Stopping.__qualname__ = "Objective"
    with pytest.raises(KeyboardInterrupt):
        fit(unlabeled(), RECIPE, ctx(), objective=Stopping())
    objective = Known()
    done = fit(unlabeled(), RECIPE, ctx(), objective=objective)
    assert objective.begun == 0
    assert torch.equal(done.model.weight, fit(unlabeled(), RECIPE, objective=Objective()).model.weight)


def test_another_description_starts_anew(tmp_path):
    class Other(Objective):
        description = "other"

    fit(unlabeled(), RECIPE, Context(store=Store(tmp_path), checkpoint_seconds=0), objective=Objective())
    other = Other()
    fit(unlabeled(), RECIPE, Context(store=Store(tmp_path), checkpoint_seconds=0), objective=other)
    assert other.calls == 6


def test_a_sampler_of_another_size_sets_the_schedule():
    class Half(Shuffle):
        size = 4

        def order(self, epoch):
            positions, weights = super().order(epoch)
            return positions[:4], weights

    done = fit(unlabeled(), RECIPE, objective=Objective(), sampler=Half(12))
    assert done.history["samples"] == [4, 4]
    steps = Recipe(model=RECIPE.model, steps=5, batch_size=4, lr=0.1)
    assert fit(unlabeled(), steps, objective=Objective(), sampler=Half(12)).history["samples"] == [4] * 5
