"""What every selection promises, checked on every selection there is, on synthetic measurements."""

import copy
import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.methods import Selector, Training, family_of, make, spec, table
from modicum.scores import Budget, Scores
from modicum.store import Store
from modicum.training.fit import fit
from modicum.training.order import permutation
from modicum.training.recipe import Recipe

N, CLASSES = 60, 3
RECIPE = Recipe(epochs=8, batch_size=10)


@dataclass(frozen=True)
class Line:
    """How a method is tried: with which options, what it reads, whether it balances classes, and how many classes it
    needs.

    Features, scores and traces are made up, so that they can be spoiled; other measurements are made for real.
    """

    method: str
    reads: tuple[str, ...] = ()
    balanced: bool = False
    classes: int = 1


LINES = {
    "random": Line("random"),
    "stratified": Line("stratified", balanced=True),
    "herding": Line("herding(encoder='inputs')", reads=("features",), balanced=True),
    "k-center-greedy": Line("k-center-greedy(encoder='inputs')", reads=("features",)),
    "support-vectors": Line("support-vectors", reads=("features",), classes=2),
    "ranked": Line("ranked(skip=0.1, class_balance=0.5)", reads=("scores",), balanced=True),
    "moderate": Line("moderate(encoder='inputs')", reads=("features",), balanced=True),
    "ccs": Line("ccs(score='el2n', beta=0.1, bins=5)", reads=("scores",), balanced=True),
    "d2-pruning": Line(
        "d2-pruning(score='el2n', encoder='inputs', beta=0.1)", reads=("scores", "features"), balanced=True
    ),
    "auto": Line("auto(runs=2)", reads=("pilot",)),
    "cal": Line("cal(neighbors=3, until=0.5)", reads=("gradients",), balanced=True),
    "deepfool": Line("deepfool(until=0.5)", reads=("gradients",), balanced=True),
    "craig": Line("craig(until=0.5)", reads=("gradients",), balanced=True),
    "gradmatch": Line("gradmatch(until=0.5)", reads=("gradients",), balanced=True),
    "glister": Line("glister(until=0.5, rounds=3)", reads=("gradients",)),
    "infobatch": Line("infobatch(ratio=0.3)"),
    "adaptive-selection": Line("adaptive-selection(keep=0.4)"),
    "hard-samples": Line("hard-samples(delta=0.4)"),
    "dynamic-reweighting": Line("dynamic-reweighting(strategy='quadratic')"),
    "s2l": Line("s2l(clusters=5)", reads=("traces",)),
    "facility-location": Line("facility-location(encoder='inputs')", reads=("features",), balanced=True),
    "graph-cut": Line("graph-cut(encoder='inputs')", reads=("features",), balanced=True),
    "log-determinant": Line("log-determinant(encoder='inputs')", reads=("features",), balanced=True),
}

METHODS = {key: kind for key, kind in table().items() if family_of(kind) == "selection"}
SELECTORS = [key for key, kind in METHODS.items() if isinstance(kind(), Selector)]
WHILE_TRAINING = [key for key, kind in METHODS.items() if isinstance(kind(), Training)]
READERS = [key for key in SELECTORS if key in LINES and "features" in LINES[key].reads]
READERS_OF_SCORES = [key for key in SELECTORS if key in LINES and "scores" in LINES[key].reads]
BUDGETS = [Budget(keep=0.25), Budget(keep=7), Budget(per_class=4), Budget(keep=1.0)]


def splits(order=None, ids=None):
    draw = np.random.default_rng(0)
    targets = torch.from_numpy(draw.permutation(np.arange(N) % CLASSES))
    inputs = torch.from_numpy(draw.normal(size=(N, 4)).astype(np.float32))
    names = draw.permutation(1000)[:N] if ids is None else ids
    data = Dataset(inputs, targets, ids=names, info=Info(classes=tuple("abc")))
    train = data if order is None else data[order]
    return Splits(train, data[:9], data[:9])


def measured(key, order=None):
    needs = method_of(key).needs()
    return tuple(made_up(kind, need, order) for kind, need in zip(LINES[key].reads, needs, strict=True))


def made_up(kind, need, order=None):
    draw = torch.Generator().manual_seed(1)
    at = torch.arange(N) if order is None else torch.as_tensor(order)
    if kind == "features":
        rows = torch.randn(N, 4, generator=draw)
        return SimpleNamespace(train=rows[at], valid=rows[:9])
    if kind == "scores":
        data = splits(order).train
        values = torch.rand(N, generator=draw)[at].numpy()
        return Scores(values, data.ids, "el2n", "difficulty", "probability distance", data.labels.numpy())
    if kind == "traces":
        by_epoch = {name: torch.rand(1, 5, N, generator=draw)[..., at] for name in ("loss", "margin", "probability")}
        snapshots = {name: torch.rand(1, N, generator=draw)[..., at] for name in ("error", "gap", "entropy", "top")}
        return SimpleNamespace(**by_epoch, **snapshots, correct=(by_epoch["loss"] < 0.7))
    return need.measure(splits(order), RECIPE, Context())


def same(a, b):
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return bool(torch.equal(torch.as_tensor(a), torch.as_tensor(b)))
    if isinstance(a, Dataset):
        return all(same(getattr(a, name), getattr(b, name)) for name in ("inputs", "targets", "ids"))
    if dataclasses.is_dataclass(a) and not isinstance(a, Ledger):
        return same(vars(a), vars(b))
    return (a.to_json() == b.to_json()) if isinstance(a, Ledger) else a == b


def method_of(key):
    return make(LINES[key].method)


def of_features(key, tables):
    return tables[LINES[key].reads.index("features")]


def selected(key, budget=BUDGETS[0], order=None, seed=0):
    return method_of(key).select(splits(order), budget, Context(seed=seed), *measured(key, order)).positions


def test_every_selection_has_a_line():
    assert set(LINES) == set(METHODS), "add one line to LINES for each selection"
    assert {*SELECTORS, *WHILE_TRAINING} == set(METHODS)


@pytest.mark.parametrize("key", METHODS)
def test_is_a_frozen_dataclass_with_a_card(key):
    kind = METHODS[key]
    assert kind.__dataclass_params__.frozen
    assert all(f.default is not dataclasses.MISSING for f in dataclasses.fields(kind))
    assert kind.card.key == key
    assert kind.card.title
    assert kind.card.paper
    assert kind.card.saves
    assert spec(kind()) == key
    assert make(spec(method_of(key))) == method_of(key)
    assert len(method_of(key).needs()) == len(LINES[key].reads)
    assert all(callable(need.measure) for need in method_of(key).needs())


@pytest.mark.filterwarnings("ignore:budget of .* is less than the .* support vectors")  # random labels: nearly all are
@pytest.mark.parametrize("key", SELECTORS)
class TestSelector:
    @pytest.mark.parametrize("budget", BUDGETS, ids=str)
    def test_gives_sorted_positions_of_the_right_number(self, key, budget):
        kept = selected(key, budget)
        assert isinstance(kept, np.ndarray)
        assert kept.dtype == np.int64
        assert len(kept) == budget.count(N, CLASSES)
        assert (np.diff(kept) > 0).all()
        assert kept[0] >= 0
        assert kept[-1] < N
        if LINES[key].balanced and budget.per_class:
            assert np.bincount(splits().train.targets[kept]).tolist() == [budget.per_class] * CLASSES

    def test_same_seed_same_bits(self, key):
        assert np.array_equal(selected(key), selected(key))

    def test_another_order_of_the_samples_permutes_the_answer(self, key):
        order = np.random.default_rng(3).permutation(N)
        straight = splits().train.ids[selected(key)]
        permuted = splits(order).train.ids[selected(key, order=order)]
        assert sorted(straight.tolist()) == sorted(permuted.tolist())

    def test_inputs_are_not_written_to(self, key):
        data, given = splits(), measured(key)
        before = copy.deepcopy([vars(table) for table in given])
        method_of(key).select(data, BUDGETS[0], Context(), *given)
        assert all(same(old, vars(table)) for old, table in zip(before, given))
        assert data.train.fingerprint == splits().train.fingerprint

    def test_ledger_only_grows(self, key):
        ctx = Context(ledger=Ledger())
        for times in (1, 2):
            before = list(ctx.ledger.charges)
            method_of(key).select(splits(), BUDGETS[0], ctx, *measured(key))
            assert ctx.ledger.charges[: len(before)] == before
            assert len(ctx.ledger.charges) == times
        assert ctx.ledger.total("choose").seconds == ctx.ledger.total().seconds > 0
        assert (ctx.ledger.total().flops > 0) == ("features" in LINES[key].reads or "gradients" in LINES[key].reads)

    def test_no_samples(self, key):
        data = splits()
        with pytest.raises(ModicumError, match="train has 0 samples; expected at least one"):
            method_of(key).select(data._replace(train=data.train[[]]), Budget(keep=1), Context(), *measured(key))

    def test_one_class_is_enough(self, key):
        data = splits()
        one = data.train.replace(targets=torch.ones(N, dtype=torch.int64))
        if LINES[key].classes > 1:
            with pytest.raises(
                ModicumError, match="targets of train: all 60 samples are of class 1; expected at least 2"
            ):
                method_of(key).select(data._replace(train=one), BUDGETS[0], Context(), *measured(key))
            return
        assert len(method_of(key).select(data._replace(train=one), BUDGETS[0], Context(), *measured(key))) == 15

    def test_repeated_ids(self, key):
        with pytest.raises(ModicumError, match="ids of train must be unique, but 0 comes twice"):
            method_of(key).select(splits(ids=np.zeros(N, int)), BUDGETS[0], Context(), *measured(key))

    def test_more_than_there_is(self, key):
        with pytest.raises(ModicumError, match="asks for 61 samples, but there are 60"):
            selected(key, Budget(keep=61))


@pytest.mark.filterwarnings("ignore:budget of .* is less than the .* support vectors")
@pytest.mark.parametrize("key", READERS)
class TestReaderOfFeatures:
    def test_not_finite(self, key):
        tables = measured(key)
        of_features(key, tables).train[5, 0] = torch.nan
        with pytest.raises(ModicumError, match=r"features\[\d+, 0\] is nan; expected finite"):
            method_of(key).select(splits(), BUDGETS[0], Context(), *tables)

    def test_wrong_shape(self, key):
        tables = measured(key)
        given, rows = of_features(key, tables), of_features(key, tables).train
        for wrong in (rows[:-1], rows[:, 0], rows[:, :0], None):
            given.train = wrong
            with pytest.raises(ModicumError, match=r"train features is .*; expected a tensor of shape \(60, d\)"):
                method_of(key).select(splits(), BUDGETS[0], Context(), *tables)

    def test_equal_samples(self, key):
        tables = measured(key)
        given = of_features(key, tables)
        given.train[30:] = given.train[:30]
        kept = method_of(key).select(splits(), BUDGETS[0], Context(), *tables)
        assert len(kept) == 15


@pytest.mark.parametrize("key", READERS_OF_SCORES)
class TestReaderOfScores:
    def given(self, key, **changed):
        tables = list(measured(key))
        at = LINES[key].reads.index("scores")
        tables[at] = dataclasses.replace(tables[at], **changed)
        return tables

    def test_of_other_samples(self, key):
        tables = self.given(key, ids=np.arange(1000, 1000 + N))
        with pytest.raises(ModicumError, match="scores are of 60 samples with other ids than the 60 of train"):
            method_of(key).select(splits(), BUDGETS[0], Context(), *tables)

    @pytest.mark.parametrize("values", [np.zeros(N), np.full(N, np.inf), np.where(np.arange(N) % 4, 1.0, np.inf)])
    def test_equal_and_infinite_scores(self, key, values):
        assert len(method_of(key).select(splits(), BUDGETS[0], Context(), *self.given(key, values=values))) == 15

    def test_a_value_and_the_difficulty_of_the_other_sign_are_the_same(self, key):
        if key == "ranked":  # without an order it keeps the highest values, but the hardest of difficulties
            return
        values = measured(key)[LINES[key].reads.index("scores")].values
        turned = self.given(key, values=-values, kind="value")
        kept = method_of(key).select(splits(), BUDGETS[0], Context(), *turned)
        assert kept.positions.tolist() == selected(key).tolist()


@pytest.mark.parametrize("key", WHILE_TRAINING)
class TestWhileTraining:
    def sampler(self, key, seed=0):
        made = method_of(key).sampler(splits(), RECIPE, Context(seed=seed))
        if made is not None:
            made.observe(torch.arange(N), torch.rand(N, generator=torch.Generator().manual_seed(2)))
        return made

    def test_same_seed_same_bits(self, key):
        for epoch in range(8):
            (a, v), (b, w) = self.sampler(key).order(epoch), self.sampler(key).order(epoch)
            assert torch.equal(a, b)
            assert (v is None and w is None) or torch.equal(v, w)

    def test_visits_fewer_samples_once_each_and_weights_fit(self, key):
        visits = 0
        for epoch in range(8):
            positions, weights = self.sampler(key).order(epoch)
            assert len(positions.unique()) == len(positions)
            assert int(positions.max()) < N
            assert weights is None or (weights.shape == positions.shape and bool((weights > 0).all()))
            visits += len(positions)
        assert visits < 8 * N or hasattr(self.sampler(key), "weigh")  # weighs all samples instead of skipping some

    def test_interrupted_and_resumed_equals_uninterrupted(self, key):
        whole, resumed = self.sampler(key), self.sampler(key)
        for epoch in range(8):
            positions, _ = whole.order(epoch)
            half = len(positions) // 2
            losses = torch.rand(len(positions), generator=torch.Generator().manual_seed(epoch))
            other, _ = resumed.order(epoch)
            resumed.observe(other[:half], losses[:half])
            state, resumed = resumed.state_dict(), method_of(key).sampler(splits(), RECIPE, Context())
            resumed.load_state_dict(state)
            assert torch.equal(resumed.order(epoch)[0], positions)
            resumed.observe(positions[half:], losses[half:])
            whole.observe(positions, losses)

    def test_begins_as_plain_training(self, key):
        fresh = method_of(key).sampler(splits(), RECIPE, Context())
        assert torch.equal(fresh.order(0)[0], permutation(N, 0, 0))

    def test_no_samples(self, key):
        data = splits()
        with pytest.raises(ModicumError, match="train has 0 samples; expected at least one"):
            method_of(key).sampler(data._replace(train=data.train[[]]), RECIPE, Context())

    def test_trains_in_a_store_and_goes_on_from_there(self, key, tmp_path):
        data, recipe = splits(), Recipe("linear", epochs=3, batch_size=10)
        ctx = Context(store=Store(tmp_path), checkpoint_seconds=0)
        with ctx.store.locked():
            stored = fit(data.train, recipe, ctx, sampler=method_of(key).sampler(data, recipe, ctx))
        alone = fit(data.train, recipe, Context(), sampler=method_of(key).sampler(data, recipe, Context()))
        assert all(torch.equal(a, b) for a, b in zip(stored.model.parameters(), alone.model.parameters()))
