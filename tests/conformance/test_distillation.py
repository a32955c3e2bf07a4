"""What every distillation promises, checked on every distillation there is, on a small table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modicum.comparison.prepare import measure
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.ledger import Ledger
from modicum.methods import Distiller, family_of, make, spec, table
from modicum.scores import Budget
from modicum.store import Store
from modicum.training.recipe import Recipe

N, CLASSES = 30, 3
RECIPE = Recipe(model="mlp(hidden=8, layers=1)", epochs=2, batch_size=10)
BUDGET = Budget(per_class=2)

LINES = {
    "cafe": "cafe(iterations=4, batch_real=8, probe=4, outer=3, inner=2)",
    "dc": "dc(iterations=4, batch_real=8, outer=2, inner=1)",
    "dcc": "dcc(iterations=4, batch_real=8, outer=2, inner=1, warmup_networks=2, warmup_updates=1)",
    "dsa": "dsa(iterations=4, batch_real=8, outer=2, inner=1)",
    "idc": "idc(iterations=4, factor=1, inner=2, batch_real=8, real_samples=16)",  # more factors make more samples
    "g-vbsm": "g-vbsm(iterations=4, batch=4, teacher_epochs=40, backbones=('resnet9(width=4)',))",
    "minimax": "minimax(iterations=4, batch_size=8, memory=4, width=4, steps=3)",
    "rded": "rded(candidates=4, crops=2, teacher='resnet9(width=4)', teacher_epochs=40)",
    "sre2l": "sre2l(iterations=4, batch=4, teacher='resnet9(width=4)', teacher_epochs=40)",
    "bptt": "bptt(iterations=4, steps=3, batch_syn=1, batch_real=4)",
    "datm": (
        "datm(iterations=4, syn_steps=3, max_start=2, expert_epochs=1, epochs=3, "
        "experts=2, first_start=1, lr_img=1.0, lr_lr=1e-9)"
    ),
    "dd": "dd(iterations=4, passes=2, networks=2, batch_real=16)",
    "dm": "dm(iterations=4, batch_real=8)",
    "frepo": "frepo(iterations=4, pool=2, lifetime=3, batch_real=8)",
    "ftd": "ftd(iterations=4, syn_steps=3, max_start=2, expert_epochs=1, experts=2, lr_lr=1e-9, batch_real=10)",
    "kip": "kip(iterations=4, targets=12)",
    "ld": "ld(iterations=4, batch_syn=4, batch_real=16, window=1)",
    "mtt": "mtt(iterations=4, syn_steps=3, max_start=2, expert_epochs=1, experts=2, lr_img=1.0, lr_lr=1e-9)",
    "rcig": "rcig(iterations=4, pool=2, lifetime=3, batch_real=8, inner_steps=3, solver_steps=3, visit_steps=2)",
    "smooth-expert": (
        "smooth-expert(iterations=4, syn_steps=4, max_start=2, epochs=3, experts=2, lr_img=1.0, lr_lr=1e-9)"
    ),
    "tesla": "tesla(iterations=4, syn_steps=3, max_start=2, expert_epochs=1, experts=2, lr_img=1.0, lr_lr=1e-9)",
}
PICTURES: set[str] = {"g-vbsm", "idc", "minimax", "rded", "sre2l"}  # for images only

METHODS = {key: kind for key, kind in table().items() if family_of(kind) == "distillation"}


def splits(order: np.ndarray | None = None, pictures: bool = False) -> Splits:
    draw = np.random.default_rng(0)
    targets = torch.from_numpy(draw.permutation(np.arange(N) % CLASSES))
    shape, modality = ((N, 1, 8, 8), "image") if pictures else ((N, 4), "tabular")
    inputs = torch.from_numpy(draw.normal(size=shape).astype(np.float32))
    info = Info(classes=tuple("abc"), modality=modality)
    data = Dataset(inputs, targets, ids=draw.permutation(1000)[:N], info=info)
    train = data if order is None else data[order]
    return Splits(train, data[:9], data[:9])


def recipe_of(key: str) -> Recipe:
    return replace(RECIPE, model="convnet(width=4)") if key in PICTURES else RECIPE


def made_by(key: str, data: Splits, budget: Budget, ctx: Context) -> Dataset:
    method, recipe = make(LINES[key]), recipe_of(key)
    return method.distill(data, budget, recipe, ctx, *measure(method, data, recipe, ctx)).dataset


def distilled(key: str, data: Splits | None = None, budget: Budget = BUDGET, seed: int = 0, **context) -> Dataset:
    return made_by(key, data or given(key), budget, Context(seed=seed, **context))


def classes_of(made: Dataset) -> list[int]:
    return np.bincount([int(text.split("-")[-2]) for text in made.ids], minlength=CLASSES).tolist()


def given(key: str, order: np.ndarray | None = None) -> Splits:
    return splits(order, key in PICTURES)


def test_every_distillation_has_a_line() -> None:
    assert set(LINES) == set(METHODS), "add one line to LINES for each distillation"


@pytest.mark.parametrize("key", LINES)
class TestDistiller:
    def test_is_a_distiller(self, key: str) -> None:
        method = make(LINES[key])
        assert isinstance(method, Distiller)
        assert make(spec(method)) == method

    def test_gives_as_many_samples_of_each_class_as_asked(self, key: str) -> None:
        made = distilled(key)
        # learned labels may come to name another class than that of the sample, which its id keeps
        own = made.class_counts().tolist() if made.targets.ndim == 1 else classes_of(made)
        assert own == [2] * CLASSES
        assert made.inputs.shape == (2 * CLASSES, *given(key).train.inputs.shape[1:])
        assert made.inputs.is_floating_point()
        assert bool(made.inputs.isfinite().all())
        assert len(set(made.ids.tolist())) == len(made)
        assert made.info == given(key).train.info

    def test_same_seed_same_bits_and_another_seed_others(self, key: str) -> None:
        assert torch.equal(distilled(key).inputs, distilled(key).inputs)
        assert not torch.equal(distilled(key).inputs, distilled(key, seed=1).inputs)

    def test_the_order_of_the_samples_does_not_matter(self, key: str) -> None:
        order = np.random.default_rng(3).permutation(N)
        assert torch.equal(distilled(key).inputs, distilled(key, given(key, order)).inputs)

    def test_only_the_training_split_is_looked_at(self, key: str) -> None:
        data = given(key)
        other = data._replace(valid=data.valid.replace(inputs=data.valid.inputs + 1), test=data.test[:3])
        assert torch.equal(distilled(key, data).inputs, distilled(key, other).inputs)

    def test_inputs_are_not_written_to(self, key: str) -> None:
        data = given(key)
        distilled(key, data)
        assert data.train.fingerprint == given(key).train.fingerprint

    def test_the_ledger_only_grows(self, key: str) -> None:
        ledger = Ledger()
        for _ in range(2):
            before = list(ledger.charges)
            distilled(key, ledger=ledger)
            assert ledger.charges[: len(before)] == before
            assert len(ledger.charges) > len(before)
        assert ledger.total("choose").flops == ledger.total().flops > 0
        assert ledger.total("choose").seconds == ledger.total().seconds > 0

    def test_interrupted_and_resumed_equals_uninterrupted(self, key: str, tmp_path: Path) -> None:
        class Stop(Exception):
            pass

        class Interrupted(Context):
            def loop(self, *work, **options):
                for number, step in enumerate(super().loop(*work, **options)):
                    if number == 2:
                        raise Stop
                    yield step

        store, whole, resumed = Store(tmp_path), Ledger(), Ledger()
        every = {"store": store, "checkpoint_seconds": 0.0}
        with pytest.raises(Stop):
            made_by(key, given(key), BUDGET, Interrupted(**every))
        assert any(name.endswith(".state") for name in store.names())
        made = made_by(key, given(key), BUDGET, Context(ledger=resumed, **every))
        assert torch.equal(made.inputs, distilled(key, ledger=whole).inputs)
        assert resumed.total().flops == whole.total().flops
        assert resumed.total().samples == whole.total().samples

    def test_no_samples(self, key: str) -> None:
        data = given(key)
        with pytest.raises(ModicumError, match=r"train has (0 samples|no sample)"):
            distilled(key, data._replace(train=data.train[[]]))

    def test_a_class_without_samples(self, key: str) -> None:
        data = given(key)
        with pytest.raises(DataError, match="train has no sample of class 'a'"):
            distilled(key, data._replace(train=data.train[data.train.labels != 0]))

    def test_not_finite(self, key: str) -> None:
        data = given(key)
        inputs = data.train.inputs.clone()
        inputs[5, 0] = torch.nan
        with pytest.raises(DataError, match="not finite"):
            distilled(key, data._replace(train=data.train.replace(inputs=inputs)))

    def test_fewer_samples_than_classes(self, key: str) -> None:
        with pytest.raises(BudgetError, match="2"):
            distilled(key, budget=Budget(keep=2))
