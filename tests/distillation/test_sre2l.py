import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import SRe2L, bn_statistics_loss
from modicum.distillation.sre2l import pixel_range
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


class Caught(nn.Module):
    """Two batch norms, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(2), nn.BatchNorm2d(3)
        self.between, self.head = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.between(self.first(x)).relu()).mean((2, 3)))  # type: ignore[no-any-return]


def seen_by(network: Caught, x: Tensor) -> None:
    """Make the running statistics those of the batch."""
    for norm in (network.first, network.second):
        y = x if norm is network.first else network.between(network.first(x)).relu()
        with torch.no_grad():
            norm.running_mean.copy_(y.mean((0, 2, 3)))
            norm.running_var.copy_(y.var((0, 2, 3), unbiased=False))


def test_the_distance_is_zero_where_the_statistics_are_the_running_ones() -> None:
    network, x = Caught().double().eval(), torch.randn(20, 2, 6, 6, dtype=torch.float64)
    seen_by(network, x)
    loss, outputs = bn_statistics_loss(network, x)
    assert float(loss.detach()) < 1e-12
    assert torch.equal(outputs, network(x))


def test_the_distance_equals_a_loop_over_layers() -> None:
    network, x = Caught().double().eval(), torch.randn(20, 2, 6, 6, dtype=torch.float64)
    y = network.between(network.first(x)).relu()
    parts = [
        (m.mean((0, 2, 3)) - n.running_mean).pow(2).sum().sqrt()
        + (m.pow(2).mean((0, 2, 3)) - m.mean((0, 2, 3)).pow(2) - n.running_var).pow(2).sum().sqrt()
        for m, n in ((x, network.first), (y, network.second))
    ]
    loss, _ = bn_statistics_loss(network, x, first=7.0)
    torch.testing.assert_close(loss, 7 * parts[0] + parts[1])


def test_networks_that_have_nothing_to_recover_from() -> None:
    x = torch.rand(4, 1, 8, 8)
    with pytest.raises(ModicumError, match=r"no batch norm with running statistics.*norm='batch'"):
        bn_statistics_loss(build("convnet(width=4)", pictures().train).eval(), x)
    with pytest.raises(ModicumError, match="training mode"):
        bn_statistics_loss(build("resnet9(width=4)", pictures().train), x)


def taught() -> Taught:
    network = build("resnet9(width=4)", pictures().train, 1).eval().requires_grad_(False)
    return Taught(network, "resnet9(width=4)", 1.0)


def made(method: SRe2L, teacher: Taught, classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Tensor:
    data = pictures(classes=classes)
    done = method.distill(data, Budget(per_class=2), RECIPE, Context(), teacher)
    return done.dataset.prepare(done.dataset.inputs)


@pytest.mark.parametrize("r_bn", [0.0, 0.1])
def test_it_equals_the_equations(r_bn: float) -> None:
    """Each batch by itself with Adam and a cosine, on whole images: of digits, which are not flipped."""
    teacher, digits, lr, steps = taught(), ("0", "1", "2"), 0.05, 4
    plain = {"scale": (1.0, 1.0), "jitter": 0.0, "batch": 3, "r_bn": r_bn}
    start = torch.randn((6, 1, 8, 8), generator=generator(0, "sre2l", "init"))
    after = made(SRe2L(iterations=steps, lr_img=lr, **plain), teacher, digits)
    low, high = pixel_range(pictures().train)
    for part in (torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5])):  # one of each class
        x = start[part].clone().requires_grad_()
        adam = torch.optim.Adam([x], lr, (0.5, 0.9))
        for k in range(steps):
            adam.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * k / steps)) / 2
            distance, outputs = bn_statistics_loss(teacher.model, x)
            loss = F.cross_entropy(outputs, torch.arange(3)) + r_bn * distance
            (x.grad,) = torch.autograd.grad(loss, x)
            adam.step()
            x.data = x.data.maximum(low).minimum(high)
        torch.testing.assert_close(after[part], x.detach(), atol=2e-3, rtol=1e-3)


def test_pixels_stay_between_black_and_white() -> None:
    train = pictures().train
    low, high = pixel_range(train)
    torch.testing.assert_close(low.flatten(), torch.tensor([-127.0 / 70]))
    torch.testing.assert_close(high.flatten(), torch.tensor([128.0 / 70]))
    x = made(SRe2L(iterations=3, lr_img=5.0), taught())
    assert float(x.min()) >= float(low) - 1e-5
    assert float(x.max()) <= float(high) + 1e-5
    assert float(x.max()) > float(high) - 1e-4  # such steps reach it


def test_the_statistics_come_nearer() -> None:
    data, teacher = pictures(), taught()
    method = SRe2L(iterations=30, r_bn=1.0, scale=(1.0, 1.0), jitter=0.0, lr_img=0.1)
    done = method.distill(data, Budget(per_class=5), RECIPE, Context(), teacher)
    assert done.history["statistics"][-1] < 0.9 * done.history["statistics"][0]
    assert done.teacher is not None
    assert done.teacher.description == "resnet9(width=4)"
    assert done.snapshots[0].iteration == 0
    assert done.history.keys() == {"iteration", "loss", "cross_entropy", "statistics"}


def test_options() -> None:
    with pytest.raises(ModicumError, match="'sre2l' option lr_img=0"):
        SRe2L(lr_img=0)
    with pytest.raises(ModicumError, match="'sre2l' option jitter"):
        SRe2L(jitter=1.0)
