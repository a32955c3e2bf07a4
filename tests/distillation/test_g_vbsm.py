from typing import Any

import pytest
import torch
from torch import Tensor

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import GVBSM, densification_loss, layer_statistics
from modicum.distillation.g_vbsm import _Averages, _Run
from modicum.distillation.teaching import Taught
from modicum.errors import ModicumError
from modicum.models import build
from modicum.scores import Budget
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="convnet(width=4)")


def pictures(classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Splits:
    x = torch.randint(0, 256, (60, 1, 8, 8), generator=generator(0, "x")).to(torch.uint8)
    info = Info(modality="image", classes=classes, mean=(127.0,), std=(70.0,))
    train = Dataset(x, torch.arange(60) % 3, info=info)
    return Splits(train, train[:6], train[:6])


def taught(text: str) -> Taught:
    return Taught(build(text, pictures().train, 1).eval().requires_grad_(False), text, 1.0)


def test_statistics_equal_a_loop() -> None:
    x = torch.randn(5, 3, 8, 6, dtype=torch.float64)
    mean, variance, patch_mean, patch_variance = layer_statistics(x)
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(variance, x.var((0, 2, 3), unbiased=False))
    patches = [x[:, :, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]  # those at the right are narrower
    torch.testing.assert_close(patch_mean, torch.stack([p.mean() for p in patches]))
    torch.testing.assert_close(patch_variance, torch.stack([p.var(unbiased=False) for p in patches]))


def test_density_is_zero_only_where_features_are_orthogonal() -> None:
    y = torch.tensor([0, 1, 0, 1])
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    rows = basis[[0, 0, 1, 1]] * torch.tensor([[2.0], [1.0], [0.5], [3.0]])
    assert abs(float(densification_loss(rows, y, 2))) < 1e-12
    nearer = rows.clone()
    nearer[2] += 0.5 * rows[0]
    same = rows[[0, 1, 0, 1]]
    assert 0 < float(densification_loss(nearer, y, 2)) < float(densification_loss(same, y, 2))
    assert float(densification_loss(rows[:2], torch.tensor([0, 1]), 2)) == 0.0  # nothing to compare


def test_renaming_the_classes_changes_nothing_and_descent_spreads() -> None:
    rows = torch.randn(12, 5, dtype=torch.float64).abs().requires_grad_()
    y = torch.arange(12) % 3
    loss = densification_loss(rows, y, 3)
    torch.testing.assert_close(densification_loss(rows, torch.tensor([2, 0, 1])[y], 3), loss)
    (slope,) = torch.autograd.grad(loss, rows)
    assert float(densification_loss(rows - 0.5 * slope, y, 3).detach()) < float(loss.detach())


class Plain(_Run):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.prepare([taught("resnet9(width=4)")])
        self.measure()


def run(method: GVBSM) -> Plain:
    return Plain(method, pictures().train, Budget(per_class=2), RECIPE, Context())


def test_real_images_have_the_real_statistics() -> None:
    method = GVBSM(r_bn=1.0, first=0.0, densify=0.0, ema=0.0)
    here = run(method)
    x = here.real(torch.arange(60))
    maps = here.maps(here.teachers[0].model, x)[0]
    own = [s for each in maps for s in layer_statistics(each)]
    for a, b in zip(own, here.real_statistics[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_earlier_batches_count() -> None:
    here = run(GVBSM(ema=0.5))
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])

    def energy(z: Tensor) -> float:
        return float(here.energy(z, y, 0)[1].detach())

    first = energy(x)
    second = energy(x)  # the same batch again: the averages are what they were
    assert second == pytest.approx(first, rel=1e-4)
    energy(x * 3)
    assert energy(x) != pytest.approx(first, rel=1e-4)
    again = _Averages()
    again.load_state_dict(here.averages.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.rows["0"], here.averages.rows["0"], strict=True))


def test_several_networks_with_batch_norm_and_without() -> None:
    method = GVBSM(iterations=6, backbones=("resnet9(width=4)", "convnet(width=4)"))
    made = method.distill(
        pictures(), Budget(per_class=2), RECIPE, Context(), taught("resnet9(width=4)"), taught("convnet(width=4)")
    )
    assert made.teacher is not None
    assert (made.teacher.loss, made.teacher.description) == ("mse", "resnet9(width=4) + convnet(width=4)")
    assert made.teacher.logits(torch.rand(4, 1, 8, 8)).shape == (4, 3)
    assert bool(made.dataset.inputs.isfinite().all())


def test_options() -> None:
    with pytest.raises(ModicumError, match=r"g-vbsm backbones=\(\); expected a tuple"):
        GVBSM(backbones=())
