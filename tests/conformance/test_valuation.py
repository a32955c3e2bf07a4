"""What every valuation promises, checked on every valuation there is, on synthetic measurements."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.methods import FAMILIES, Valuation, family_of, make, spec, table
from modicum.training.recipe import Recipe

assert "valuation" in FAMILIES
N, M, CLASSES = 60, 21, 3
RECIPE = Recipe(model="linear", epochs=2, batch_size=16)


@dataclass(frozen=True)
class Line:
    """How a method is tried: with which options, on which measurement, and which column of it the method reads.

    Traces and features are made up, so that a column of theirs can be spoiled; other measurements are made for real, and
    "none" is for methods that read the data themselves.
    """

    method: str
    measurement: str
    column: str = ""


JUDGED = Path(__file__).parents[1] / "fixtures" / "judged.csv"

LINES = {
    "el2n": Line("el2n(runs=3)", "traces", "error"),
    "forgetting": Line("forgetting(runs=3)", "traces", "correct"),
    "aum": Line("aum(runs=3)", "traces", "margin"),
    "margin": Line("margin(runs=3)", "traces", "gap"),
    "entropy": Line("entropy(runs=3)", "traces", "entropy"),
    "least-confidence": Line("least-confidence(runs=3)", "traces", "top"),
    "dataset-cartography": Line("dataset-cartography(runs=3)", "traces", "probability"),
    "dyn-unc": Line("dyn-unc(window=3, runs=3)", "traces", "probability"),
    "supervised-prototypes": Line("supervised-prototypes", "features", "train"),
    "grand": Line("grand(runs=2)", "gradients"),
    "knn-banzhaf": Line("knn-banzhaf(k=3)", "features", "train"),
    "knn-shapley": Line("knn-shapley(k=3)", "features", "train"),
    "knn-shapley-regression": Line("knn-shapley-regression(k=3)", "features", "train"),
    "threshold-knn-shapley": Line("threshold-knn-shapley(neighbors=3)", "features", "train"),
    "ssp": Line("ssp", "features", "train"),
    "loo": Line("loo", "features", "train"),
    "lava": Line("lava(eps=0.5)", "features", "train"),
    "data-oob": Line("data-oob(trees=40)", "features", "train"),
    "volume-based": Line("volume-based", "features", "train"),
    "influence": Line("influence", "features", "train"),
    "tracin": Line("tracin(checkpoints=2)", "gradients"),
    "trak": Line("trak(models=2, dimensions=8)", "gradients"),
    "data-shapley": Line("data-shapley(permutations=4)", "utilities"),
    "beta-shapley": Line("beta-shapley(permutations=4)", "utilities"),
    "data-banzhaf": Line("data-banzhaf(samples=20)", "utilities"),
    "cs-shapley": Line("cs-shapley(permutations=4)", "utilities"),
    "datamodels": Line("datamodels(models=20)", "utilities"),
    "memorization": Line("memorization(models=10)", "utilities"),
    "quality": Line(f"quality(labels='{JUDGED}', encoder='inputs', classifier='logistic')", "features", "train"),
    "g-shapley": Line("g-shapley(permutations=4)", "features", "train"),
}

NEEDED = {"classification": "class labels", "regression": "regression targets"}
METHODS = {key: kind for key, kind in table().items() if family_of(kind) == "valuation"}


def reads_no_labels(key):
    return "unlabeled" in METHODS[key].card.tasks


def task_of(key):
    tasks = METHODS[key].card.tasks
    return "classification" if "classification" in tasks else tasks[0]


def splits(key, order=None, ids=None):
    draw = np.random.default_rng(0)
    targets = torch.from_numpy(draw.permutation(np.arange(N) % CLASSES))
    inputs = torch.from_numpy(draw.normal(size=(N, 4)).astype(np.float32))
    names = draw.permutation(1000)[:N] if ids is None else ids
    info = Info(classes=tuple("abc"))
    if task_of(key) == "regression":
        targets, info = targets.float() + torch.from_numpy(draw.normal(size=N)).float(), Info("regression")
    train = Dataset(inputs, targets, ids=names, info=info)
    if order is not None:
        train = train[order]
    valid = Dataset(inputs[:M] + 0.1, targets[:M], info=info)
    return Splits(train, valid, valid)


def measured(key, order=None):
    kind = LINES[key].measurement
    if kind == "none":
        return ()
    if kind not in ("features", "traces"):
        return tuple(need.measure(splits(key, order), RECIPE, Context()) for need in method_of(key).needs())
    return (made_up(kind, order),)


def spoilable(key):
    if not LINES[key].column:
        pytest.skip("what it reads is not a table that could be spoiled")
    return made_up(LINES[key].measurement)


def made_up(kind, order=None):
    draw = torch.Generator().manual_seed(1)
    at = torch.arange(N) if order is None else torch.as_tensor(order)
    if kind == "features":
        train, valid = torch.randn(N, 4, generator=draw), torch.randn(M, 4, generator=draw)
        return SimpleNamespace(train=train[at], valid=valid)
    by_epoch = {name: torch.randn(3, 5, N, generator=draw)[..., at] for name in ("loss", "margin", "probability")}
    by_epoch["probability"] = by_epoch["probability"].frac().abs()
    correct = (torch.rand(3, 5, N, generator=draw) < 0.7)[..., at]
    snapshots = {name: torch.rand(3, N, generator=draw)[..., at] for name in ("error", "gap", "entropy", "top")}
    return SimpleNamespace(**by_epoch, **snapshots, correct=correct)


def method_of(key):
    return make(LINES[key].method)


def scored(key, order=None, seed=0):
    return method_of(key).score(splits(key, order), Context(seed=seed), *measured(key, order))


def test_every_valuation_has_a_line():
    assert set(LINES) == set(METHODS), "add one line to LINES for each valuation"


@pytest.mark.parametrize("key", METHODS)
class TestValuation:
    def test_is_a_frozen_dataclass_with_a_card(self, key):
        kind = METHODS[key]
        assert isinstance(kind(), Valuation)
        assert kind.__dataclass_params__.frozen
        assert all(f.default is not dataclasses.MISSING for f in dataclasses.fields(kind))
        assert kind.card.key == key
        assert kind.card.title
        assert kind.card.paper
        assert kind.card.saves
        assert spec(kind()) == key
        assert make(spec(method_of(key))) == method_of(key)

    def test_needs_measurements(self, key):
        needs = method_of(key).needs()
        assert all(callable(need.measure) for need in needs)
        assert (type(needs[0]).__name__.lower() if needs else "none") == LINES[key].measurement

    def test_same_seed_same_bits(self, key):
        a, b = scored(key), scored(key)
        assert np.array_equal(a.values, b.values)
        assert np.array_equal(a.ranking(), b.ranking())

    def test_says_what_it_is(self, key):
        scores = scored(key)
        assert scores.method == key
        assert scores.kind in ("value", "difficulty")
        assert scores.unit
        assert scores.values.dtype == np.float64
        assert scores.ids.tolist() == splits(key).train.ids.tolist()
        if task_of(key) == "classification":
            assert scores.labels.tolist() == splits(key).train.targets.tolist()
        else:
            assert scores.labels is None
        assert len(scores.kept(0.3)) == 18

    def test_another_order_of_the_samples_permutes_the_answer(self, key):
        order = np.random.default_rng(3).permutation(N)
        straight, permuted = scored(key), scored(key, order)
        assert np.array_equal(permuted.ids, straight.ids[order])
        assert np.array_equal(permuted.values, straight.values[order])
        assert np.array_equal(permuted.ids[permuted.ranking()], straight.ids[straight.ranking()])

    def test_inputs_are_not_written_to(self, key):
        data, given = splits(key), measured(key)
        columns = [read for read in given if isinstance(read, SimpleNamespace)]
        before = [{name: column.clone() for name, column in vars(read).items()} for read in columns]
        method_of(key).score(data, Context(), *given)
        for read, then in zip(columns, before):
            assert all(torch.equal(then[name], column) for name, column in vars(read).items())
        assert data.train.fingerprint == splits(key).train.fingerprint
        assert data.valid.fingerprint == splits(key).valid.fingerprint

    def test_ledger_only_grows_and_adds_up(self, key):
        ctx = Context(ledger=Ledger())
        for times in (1, 2):
            before = list(ctx.ledger.charges)
            method_of(key).score(splits(key), ctx, *measured(key))
            assert ctx.ledger.charges[: len(before)] == before
            assert len(ctx.ledger.charges) == times
        assert ctx.ledger.total("choose").seconds == ctx.ledger.total().seconds > 0
        assert ctx.ledger.total().flops == sum(c.flops for c in ctx.ledger.charges) >= 0

    def test_no_samples(self, key):
        data = splits(key)
        with pytest.raises(ModicumError, match="train has 0 samples; expected at least one"):
            method_of(key).score(data._replace(train=data.train[[]]), Context(), *measured(key))

    def test_one_class(self, key):
        if task_of(key) != "classification":
            pytest.skip("there are no classes")
        data = splits(key)
        one = data.train.replace(targets=torch.ones(N, dtype=torch.int64))
        if reads_no_labels(key):
            assert len(method_of(key).score(data._replace(train=one), Context(), *measured(key))) == N
            return
        with pytest.raises(ModicumError, match="targets of train: all 60 samples are of class 1; expected at least 2"):
            method_of(key).score(data._replace(train=one), Context(), *measured(key))

    def test_repeated_ids(self, key):
        with pytest.raises(ModicumError, match=r"ids of .* must be unique"):
            method_of(key).score(splits(key, ids=np.zeros(N, int)), Context(), *measured(key))

    def test_not_finite(self, key):
        given = spoilable(key)
        column = getattr(given, LINES[key].column)
        if not column.is_floating_point():
            pytest.skip("booleans are always finite")
        column[..., 0] = torch.nan
        with pytest.raises(ModicumError, match=rf"{LINES[key].column}.*\[.*\] is nan.*expected finite"):
            method_of(key).score(splits(key), Context(), given)

    def test_wrong_shape(self, key):
        given = spoilable(key)
        column = getattr(given, LINES[key].column)
        for wrong in (
            column[:, :-1] if LINES[key].measurement == "traces" and column.ndim == 2 else column[..., None],
            None,
        ):
            setattr(given, LINES[key].column, wrong)
            with pytest.raises(ModicumError, match=rf"{LINES[key].column}.* is .*; expected a tensor of shape"):
                method_of(key).score(splits(key), Context(), given)

    def test_unlabeled(self, key):
        data = splits(key)
        bare = data.train.replace(targets=None, info=Info("unlabeled"))
        if reads_no_labels(key):
            unlabeled = method_of(key).score(data._replace(train=bare), Context(), *measured(key))
            assert np.array_equal(unlabeled.values, scored(key).values)
            return
        text = f"{NEEDED[task_of(key)]} are needed, but this data set is for unlabeled"
        with pytest.raises(ModicumError, match=text):
            method_of(key).score(data._replace(train=bare), Context(), *measured(key))
