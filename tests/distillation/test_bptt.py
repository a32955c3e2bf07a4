"""Long trainings with momentum, and samples that are sums of bases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import BPTT, Distilled, addressed, addresses_for
from modicum.distillation.bptt import _Run
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.scores import Budget
from modicum.training.recipe import Recipe

MODEL = "convnet(width=4)"
FAST = BPTT(iterations=3, steps=4, batch_syn=1, batch_real=6, model=MODEL)


def pictures(n: int = 30, side: int = 8) -> Splits:
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.normal(size=(n, 1, side, side)).astype(np.float32))
    data = Dataset(images, torch.arange(n) % 3, info=Info(modality="image", classes=tuple("abc")))
    return Splits(data, data, data)


def distilled(method: BPTT = FAST, budget: Budget | None = None) -> Distilled:
    return method.distill(pictures(), budget or Budget(per_class=2), Recipe(), Context())


class TestAddresses:
    def test_the_worked_example(self) -> None:
        assert addresses_for((3, 32, 32), 10, 1, 16) == 115

    @settings(max_examples=50, deadline=None)
    @given(
        classes=st.integers(2, 20),
        per_class=st.integers(1, 50),
        bases=st.integers(1, 40),
        downsample=st.sampled_from([1, 2, 4]),
    )
    def test_as_many_as_fit(self, classes: int, per_class: int, bases: int, downsample: int) -> None:
        small = 3 * (16 // downsample) ** 2
        room = classes * per_class * 3 * 16 * 16
        try:
            r = addresses_for((3, 16, 16), classes, per_class, bases, downsample)
        except BudgetError:
            assert bases * small + classes * bases > room
            return
        assert bases * small + r * classes * bases <= room < bases * small + (r + 1) * classes * bases

    def test_errors(self) -> None:
        with pytest.raises(BudgetError, match=r"40 bases already exceed the storage of 1 sample\(s\) a class"):
            addresses_for((1, 8, 8), 10, 1, 40)
        with pytest.raises(DataError, match=r"downsample=2 does not divide the sides of inputs of shape \(1, 7, 7\)"):
            addresses_for((1, 7, 7), 10, 1, 2)
        with pytest.raises(DataError, match="or downsample=1"):
            addresses_for((5,), 10, 1, 2)


class TestAddressed:
    def test_identity_addresses_give_the_bases(self) -> None:
        x = torch.rand(6, 1, 8, 8)
        assert torch.equal(addressed(torch.eye(6), x, (1, 8, 8)), x)

    def test_is_linear_and_upsamples(self) -> None:
        bases, a = torch.rand(3, 2, 4, 4), torch.rand(5, 3)
        whole = F.interpolate(bases, scale_factor=2.0, mode="bilinear", align_corners=False)
        torch.testing.assert_close(
            addressed(a, bases, (2, 8, 8), 2), (a @ whole.flatten(1)).reshape(5, 2, 8, 8), rtol=1e-4, atol=1e-5
        )

    def test_errors(self) -> None:
        with pytest.raises(DataError, match=r"addresses is \(2, 3\) and bases \(4, 1, 8, 8\); expected \(m, K\)"):
            addressed(torch.zeros(2, 3), torch.zeros(4, 1, 8, 8), (1, 8, 8))


def test_bases_with_identity_addresses_learn_as_plain_samples_do() -> None:
    """What a step does to K = m bases, with their addresses held at the identity, is what it does to the samples."""
    data, ctx, budget = pictures(), Context(), Budget(per_class=2)
    plain = _Run(FAST, data.train, budget, Recipe(), ctx)
    based = _Run(replace(FAST, bases=6, downsample=1), data.train, Budget(per_class=3), Recipe(), ctx)
    based.counts, based.labels = plain.counts, plain.labels
    start = plain.inputs.detach()
    based.learned["bases"] = start.clone().requires_grad_()
    based.learned["addresses"] = torch.eye(6).requires_grad_()
    pull = torch.rand(6, 1, 8, 8)
    slopes = based._to_bases(["bases", "addresses"], based.decoded(), pull)
    torch.testing.assert_close(slopes[0], pull)
    assert torch.equal(based.decoded(), start)
    seen: list[dict[str, torch.Tensor]] = []
    for run in (plain, based):
        run.descend = lambda **s: seen.append(s)  # type: ignore[method-assign]
        run.method = replace(run.method, clip=0.0)
        run.step(0)
    torch.testing.assert_close(seen[0]["inputs"], seen[1]["bases"])
    assert float(seen[0]["inputs"].abs().max()) > 0


def test_plain_samples() -> None:
    made = distilled()
    assert made.dataset.class_counts().tolist() == [2, 2, 2]
    assert made.stored == {}
    assert made.recipe == Recipe(
        MODEL, 300, batch_size=3, lr=0.01, momentum=0.9, nesterov=False, weight_decay=0.0, schedule="constant"
    )


def test_more_samples_in_the_same_storage() -> None:
    made = distilled(replace(FAST, bases=4))
    r = addresses_for((1, 8, 8), 3, 2, 4)
    assert r == 26
    assert made.dataset.class_counts().tolist() == [r] * 3
    assert {name: tuple(t.shape) for name, t in made.stored.items()} == {"bases": (4, 1, 4, 4), "addresses": (78, 4)}
    decoded = addressed(made.stored["addresses"], made.stored["bases"], (1, 8, 8), 2)
    torch.testing.assert_close(made.dataset.inputs, decoded)
    assert sum(t.numel() for t in made.stored.values()) <= 3 * 2 * 64
    assert made.bytes < made.dataset.inputs.numel() * 4


def test_augmented_alike_when_taken_again() -> None:
    made = distilled(replace(FAST, augment="flip_rotate"))
    assert made.recipe.augment == ("dsa(strategy='flip_rotate')",)
    assert torch.equal(made.dataset.inputs, distilled(replace(FAST, augment="flip_rotate")).dataset.inputs)
    assert not torch.equal(made.dataset.inputs, distilled().dataset.inputs)


def test_batches_hold_as_many_of_every_class() -> None:
    run = _Run(FAST, pictures().train, Budget(per_class=5), Recipe(), Context())
    part = run._part(torch.Generator().manual_seed(0), 2)
    assert run.labels[part].bincount().tolist() == [2, 2, 2]
    assert len(part.unique()) == 6


def test_the_gradient_is_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(_Run, "descend", lambda self, **slopes: seen.append(slopes))
    distilled(replace(FAST, bases=4, clip=1e-3, iterations=1))
    norm = sum(float(s.square().sum()) for s in seen[0].values()) ** 0.5
    assert norm == pytest.approx(1e-3, rel=1e-4)


def test_a_table_has_bases_too() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    data = Dataset(x, torch.arange(30) % 3, info=Info(classes=tuple("abc")))
    method = replace(FAST, bases=1, downsample=1, model="mlp(hidden=4, layers=1)")
    made = method.distill(Splits(data, data, data), Budget(per_class=2), Recipe(), Context())
    assert made.dataset.class_counts().tolist() == [6, 6, 6]  # (3 * 2 * 4 - 4) // 3


def test_errors() -> None:
    with pytest.raises(BudgetError, match="40 bases already exceed"):
        distilled(replace(FAST, bases=40))
    with pytest.raises(ModicumError, match="gives classes 2 or 3 samples; bases need a budget per class"):
        distilled(replace(FAST, bases=2), Budget(keep=8))
    for options, message in (
        ({"steps": 0}, "'bptt' option steps=0; expected an integer > 0"),
        ({"momentum": 1.0}, r"'bptt' option momentum=1.0; expected a number in \[0, 1\)"),
        ({"bases": -1}, "'bptt' option bases=-1; expected an integer >= 0"),
        ({"augment": "flips"}, "family 'flips' is unknown; did you mean 'flip'"),
    ):
        with pytest.raises(ModicumError, match=message):
            BPTT(**options)  # type: ignore[arg-type]
