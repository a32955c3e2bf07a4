from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import DM, class_means, dm_loss
from modicum.errors import BudgetError, DataError, ModicumError, TrainingError
from modicum.flops import count_flops
from modicum.methods import Distiller, make, spec
from modicum.models import build, features
from modicum.scores import Budget
from modicum.store import Store
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="convnet(width=4)")
FAST = DM(iterations=4, batch_real=8)


def pictures(n: int = 60, classes: tuple[str, ...] = ("cat", "dog", "eel"), side: int = 8) -> Splits:
    x = torch.randint(0, 256, (n, 1, side, side), generator=generator(0, "x")).to(torch.uint8)
    y = torch.arange(n) % len(classes)
    train = Dataset(x, y, info=Info(modality="image", classes=classes, mean=(127.0,), std=(70.0,)))
    return Splits(train, train[:6], train[:6])


def table(n: int = 60) -> Splits:
    x = torch.randn(n, 5, generator=generator(0, "table")) * torch.arange(1, 6) + 3
    info = Info(classes=("a", "b"), mean=(3.0,) * 5, std=(1.0, 2.0, 3.0, 4.0, 5.0))
    train = Dataset(x, torch.arange(n) % 2, info=info)
    return Splits(train, train[:6], train[:6])


def sets(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = generator(seed, "sets")
    real, made = (torch.randn(n, 7, generator=g, dtype=torch.float64) for n in (30, 9))
    return real, torch.arange(30) % 3, made.requires_grad_(), torch.arange(9) % 3


def test_the_loss_equals_a_loop_over_classes() -> None:
    real, real_y, made, made_y = sets()
    loop = sum((real[real_y == c].mean(0) - made[made_y == c].mean(0)).pow(2).sum() for c in range(3))
    torch.testing.assert_close(dm_loss(real, real_y, made, made_y, 3), loop)


def test_a_constant_added_to_all_features_changes_nothing() -> None:
    real, real_y, made, made_y = sets()
    shift = torch.randn(7, dtype=torch.float64)
    shifted = dm_loss(real + shift, real_y, made + shift, made_y, 3)
    torch.testing.assert_close(shifted, dm_loss(real, real_y, made, made_y, 3))


def test_the_gradient_of_a_class_reaches_its_own_samples_only() -> None:
    real, real_y, made, made_y = sets()
    loss = (class_means(real, real_y, 3) - class_means(made, made_y, 3)).pow(2).sum(1)[1]
    (slope,) = torch.autograd.grad(loss, made)
    assert bool((slope[made_y != 1] == 0).all())
    assert bool((slope[made_y == 1] != 0).all())


def test_renaming_the_classes_changes_nothing() -> None:
    real, real_y, made, made_y = sets()
    names = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        dm_loss(real, names[real_y], made, names[made_y], 3), dm_loss(real, real_y, made, made_y, 3)
    )


class Identity(nn.Module):
    """Features are the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.head = nn.Flatten(), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("init", ["real", "noise"])
def test_with_pixels_as_features_it_finds_the_class_means(init: Any) -> None:
    data = pictures()
    method = DM(iterations=80, lr_img=0.2, augment="none", init=init)
    made = method.distill(data, Budget(per_class=1), Recipe(model=Identity), Context()).dataset
    x = data.train.prepare(data.train.inputs).flatten(1)
    means = class_means(x, data.train.labels, 3)
    torch.testing.assert_close(made.prepare(made.inputs).flatten(1), means, rtol=0, atol=1e-5)
    stored = class_means(data.train.inputs.flatten(1).float(), data.train.labels, 3)
    torch.testing.assert_close(made.inputs.flatten(1), stored, rtol=0, atol=1e-3)


def test_descent_on_the_loss_itself_reaches_the_means_to_a_millionth() -> None:
    real, real_y, _, _ = sets()
    made = torch.zeros(3, 7, dtype=torch.float64, requires_grad=True)
    for _ in range(60):
        loss = dm_loss(real, real_y, made, torch.arange(3), 3)
        (slope,) = torch.autograd.grad(loss, made)
        made = (made - 0.3 * slope).detach().requires_grad_()
    torch.testing.assert_close(made.detach(), class_means(real, real_y, 3), rtol=0, atol=1e-6)
    assert float(loss.detach()) < 1e-12


def test_one_step_equals_the_equations() -> None:
    """The batched pass over all classes against a plain loop over classes with the same draws."""
    data = pictures()
    train, seed = data.train, 3
    made = (
        replace(FAST, iterations=1, batch_real=100, augment="none")
        .distill(data, Budget(per_class=2), RECIPE, Context(seed=seed))
        .dataset
    )
    start = _start(data, seed)
    g = generator(seed, "dm", 0)
    network = build(RECIPE.model, train, int(torch.randint(2**31, (1,), generator=g)))
    x = start.clone().requires_grad_()
    f_real, f_made = features(network, train.prepare(train.inputs)), features(network, x)
    loss = sum((f_real[train.labels == c].mean(0) - f_made[2 * c : 2 * c + 2].mean(0)).pow(2).sum() for c in range(3))
    (slope,) = torch.autograd.grad(loss, x)  # type: ignore[arg-type]
    torch.testing.assert_close(made.prepare(made.inputs), start - slope, rtol=1e-4, atol=1e-4)


def _start(data: Splits, seed: int) -> Tensor:
    """The initial inputs, seen through a step of almost nothing."""
    still = replace(FAST, iterations=1, lr_img=1e-30, augment="none")
    made = still.distill(data, Budget(per_class=2), RECIPE, Context(seed=seed)).dataset
    return made.prepare(made.inputs)


def test_it_starts_from_different_real_samples_of_each_class() -> None:
    data = pictures()
    made = replace(FAST, lr_img=1e-30).distill(data, Budget(per_class=3), RECIPE, Context()).dataset
    distance = torch.cdist(made.inputs.flatten(1), data.train.inputs.flatten(1).float())
    nearest = distance.argmin(1)
    assert float(distance.min(1).values.max()) < 1e-2
    assert torch.equal(data.train.labels[nearest], made.labels)
    assert len(nearest.unique()) == 9


def test_what_comes_out() -> None:
    data, ctx = pictures(), Context()
    made = FAST.distill(data, Budget(per_class=2), RECIPE, ctx).dataset
    assert made.ids.tolist() == ["dm-0-0", "dm-0-1", "dm-1-0", "dm-1-1", "dm-2-0", "dm-2-1"]
    assert made.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert made.info == data.train.info
    assert made.inputs.dtype == torch.float32
    assert made.inputs.shape == (6, 1, 8, 8)
    again = FAST.distill(data, Budget(per_class=2), RECIPE, Context()).dataset
    assert torch.equal(made.inputs, again.inputs)
    other = FAST.distill(data, Budget(per_class=2), RECIPE, Context(seed=1)).dataset
    assert not torch.equal(made.inputs, other.inputs)


def test_the_order_of_the_data_changes_nothing() -> None:
    data = pictures()
    order = torch.randperm(60, generator=generator(0))
    made = FAST.distill(data, Budget(per_class=2), RECIPE, Context()).dataset
    turned = FAST.distill(data._replace(train=data.train[order]), Budget(per_class=2), RECIPE, Context()).dataset
    assert torch.equal(made.inputs, turned.inputs)


def test_a_total_is_spread_evenly_and_the_larger_classes_get_the_rest() -> None:
    data = pictures()
    data = data._replace(train=data.train[[0, 3, 6, *(i for i in range(60) if i % 3)]])
    made = FAST.distill(data, Budget(keep=8), RECIPE, Context()).dataset
    assert made.class_counts().tolist() == [2, 3, 3]


@pytest.mark.parametrize("classes, strategy", [(tuple("0123"), False), (("a", "b"), True)])
def test_digits_are_not_flipped(classes: tuple[str, ...], strategy: bool) -> None:
    from modicum.data.siamese import strategy_for

    assert ("flip" in strategy_for("dm", "auto", pictures(classes=classes).train)) == strategy
    assert strategy_for("dm", "auto", table().train) == ()


def test_tables_work_without_augmentation() -> None:
    made = DM(iterations=5, lr_img="auto").distill(table(), Budget(per_class=2), Recipe(model="mlp"), Context()).dataset
    assert made.inputs.shape == (4, 5)
    assert bool(made.inputs.isfinite().all())


def test_auto_changes_the_inputs_by_one_percent_at_first() -> None:
    data = pictures()
    for model in ("mlp", "convnet(width=4)"):
        method = DM(iterations=1, lr_img="auto", augment="none", model=model)
        x = method.distill(data, Budget(per_class=2), RECIPE, Context()).dataset
        start = _start(data, 0)
        ratio = (x.prepare(x.inputs) - start).pow(2).mean().sqrt() / start.pow(2).mean().sqrt()
        assert float(ratio) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, stop: int) -> None:
    data, budget, method = pictures(), Budget(per_class=2), replace(FAST, iterations=6, lr_img="auto")
    whole, resumed = Context(), Context(store=Store(tmp_path), checkpoint_seconds=0)
    expected = method.distill(data, budget, RECIPE, whole).dataset

    class Killed(BaseException):
        pass

    class Dying(Context):
        def loop(self, *args: Any, **options: Any) -> Any:
            for step in super().loop(*args, **options):
                if step == stop:
                    raise Killed
                yield step

    dying = Dying(store=Store(tmp_path), checkpoint_seconds=0)
    with pytest.raises(Killed):
        method.distill(data, budget, RECIPE, dying)
    assert any(name.startswith("dm-") for name in Store(tmp_path).names())
    made = method.distill(data, budget, RECIPE, resumed).dataset
    assert torch.equal(made.inputs, expected.inputs)
    for one, two in zip(resumed.ledger.charges, whole.ledger.charges, strict=True):
        assert replace(one, seconds=0, peak_bytes=0) == replace(two, seconds=0, peak_bytes=0)


def test_the_ledger_is_exact() -> None:
    data, ctx = pictures(), Context()
    FAST.distill(data, Budget(per_class=2), RECIPE, ctx)
    total = ctx.ledger.total("choose")
    network = build(RECIPE.model, data.train, 0).requires_grad_(False)
    with count_flops() as forward:
        rows = features(network, torch.zeros(30, 1, 8, 8, requires_grad=True))
    with count_flops() as backward:
        rows[:6].sum().backward()
    assert total.samples == 4 * (3 * 8 + 6)
    assert total.labels == 60
    assert total.forward_flops == 4 * forward.flops
    assert total.backward_flops == 4 * backward.flops * 6 // 30
    assert total.extra_flops == 4 * 2 * 3 * (24 + 2 * 6) * 16
    assert total.parameters == sum(p.numel() for p in network.parameters())
    assert total.uncounted == ()


def test_many_real_samples_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures()
    whole = replace(FAST, batch_real=20).distill(data, Budget(per_class=1), RECIPE, Context()).dataset
    monkeypatch.setattr("modicum.distillation.dm.BLOCK", 7)
    parts = replace(FAST, batch_real=20).distill(data, Budget(per_class=1), RECIPE, Context()).dataset
    torch.testing.assert_close(whole.inputs, parts.inputs, rtol=1e-3, atol=1e-2)


def test_it_is_a_distiller_with_a_key() -> None:
    method = make("dm(iterations=7, lr_img='auto')")
    assert isinstance(method, Distiller)
    assert spec(method) == "dm(iterations=7, lr_img='auto')"


def test_data_are_not_written() -> None:
    data = table()
    before = data.train.inputs.clone()
    DM(iterations=3, lr_img=0.01).distill(data, Budget(per_class=2), Recipe(model="mlp"), Context())
    assert torch.equal(data.train.inputs, before)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr_img": 0}, "dm lr_img=0; expected a number > 0 or 'auto'"),
        ({"lr_img": "big"}, "dm lr_img='big'; expected"),
        ({"iterations": 0}, "dm iterations=0; expected an integer >= 1"),
        ({"momentum": 1}, r"dm momentum=1; expected a number in \[0, 1\)"),
        ({"init": "zero"}, "dm init='zero'; expected 'real' or 'noise'"),
        ({"augment": "crops"}, "augment='crops': family 'crops' is unknown; did you mean 'crop'"),
    ],
)
def test_errors_of_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        DM(**options)


def test_errors_of_the_data() -> None:
    data = pictures()

    def distill(train: Dataset, budget: Budget | None = None, method: DM = FAST) -> Dataset:
        return method.distill(Splits(train, train, train), budget or Budget(per_class=1), RECIPE, Context()).dataset

    info = Info(modality="text", classes=("a", "b"), vocabulary=("", "?"))
    text = Dataset(torch.ones(4, 3).long(), torch.tensor([0, 1, 0, 1]), info=info)
    with pytest.raises(DataError, match="text is token numbers; use a selection method"):
        distill(text)
    with pytest.raises(DataError, match="train has no sample of class 'eel'"):
        distill(data.train[data.train.labels != 2])
    with pytest.raises(DataError, match=r"uint8 from 0 to 255, and info\.mean and info\.std are empty"):
        distill(data.train.replace(info=replace(data.train.info, mean=(), std=())))
    x = data.train.inputs.float()
    x[7, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="inputs of sample 7 are not finite"):
        distill(data.train.replace(inputs=x))
    with pytest.raises(DataError, match="class labels are needed"):
        distill(Dataset(torch.rand(4, 3), torch.rand(4), info=Info(task="regression")))
    with pytest.raises(BudgetError, match="makes 2 samples, but dm needs one for each of the 3 classes"):
        distill(data.train, Budget(keep=2))
    with pytest.raises(DataError, match="augment='crop' is for images, but this data set is tabular"):
        distill(table().train, method=replace(FAST, augment="crop"))
    with pytest.raises(DataError, match="train has 0 samples"):
        distill(data.train[:0])
    with pytest.warns(UserWarning, match="class 0 has 20 of the 21 asked for; it starts from copies"):
        distill(data.train, Budget(per_class=21))
    with pytest.warns(UserWarning, match="leave flip out"):
        distill(pictures(classes=("0", "1")).train, method=replace(FAST, augment="flip"))


def test_a_step_that_is_too_large_says_so() -> None:
    with pytest.raises(
        TrainingError, match=r"not finite after iteration \d+: lr=1e\+30 of the inputs is too large .* lr_img='auto'"
    ):
        replace(FAST, lr_img=1e30, iterations=20).distill(table(), Budget(per_class=1), Recipe(model="mlp"), Context())


def test_errors_of_the_mathematics() -> None:
    f, y = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(DataError, match=r"real_features is \(4, 2\) and synthetic_features \(4, 3\)"):
        dm_loss(f, y, torch.rand(4, 3), y, 2)
    with pytest.raises(DataError, match=r"synthetic_labels is \(3,\); expected \(4,\)"):
        dm_loss(f, y, f, y[:3], 2)
    with pytest.raises(DataError, match=r"real_labels reach from 0 to 1; expected 0..0"):
        dm_loss(f, y, f, y, 1)
    with pytest.raises(DataError, match="real_labels hold no sample of class 2"):
        dm_loss(f, y, f, y, 3)


def test_ids_are_strings() -> None:
    made = FAST.distill(pictures(), Budget(per_class=1), RECIPE, Context()).dataset
    assert made.ids.dtype.kind == "U"
    assert len(np.unique(made.ids)) == len(made)
