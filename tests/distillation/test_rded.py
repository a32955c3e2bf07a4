import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import RDED, lowest_loss_crops, tile, untile
from modicum.distillation.rded import lowest_of_each
from modicum.distillation.teaching import Taught
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.scores import Budget
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="convnet(width=4)")


def pictures(classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Splits:
    x = torch.randint(0, 256, (60, 1, 8, 8), generator=generator(0, "x")).to(torch.uint8)
    info = Info(modality="image", classes=classes, mean=(127.0,), std=(70.0,))
    train = Dataset(x, torch.arange(60) % 3, info=info)
    return Splits(train, train[:6], train[:6])


def judge(size: int = 64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(size, 3))


def fitted() -> Taught:
    """Knows most of the small pictures: ridge regression on their pixels."""
    train = pictures().train
    x, y = train.prepare(train.inputs).flatten(1), train.labels
    model = judge()
    with torch.no_grad():
        model[1].weight.copy_(torch.linalg.solve(x.T @ x + 20 * torch.eye(64), x.T @ F.one_hot(y, 3).float()).T)
        model[1].bias.zero_()
    return Taught(model, "linear", 1.0)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_tiles_come_apart_as_they_were(factor: int, images: int, side: int) -> None:
    crops = torch.rand(images * factor**2, 2, side, side + 1)
    tiled = tile(crops, factor)
    assert tiled.shape == (images, 2, factor * side, factor * (side + 1))
    assert torch.equal(untile(tiled, factor), crops)


def test_one_whole_crop_is_the_image_and_its_loss() -> None:
    x, y, teacher = torch.randn(700, 1, 8, 8), torch.arange(700) % 3, judge()
    crops, losses = lowest_loss_crops(teacher, x, y, generator(0), crops=1, scale=(1.0, 1.0))
    assert torch.equal(crops, x)
    torch.testing.assert_close(losses, F.cross_entropy(teacher(x), y, reduction="none").detach())


def test_the_crop_with_the_lowest_loss_is_kept() -> None:
    x, y, teacher = torch.randn(6, 1, 8, 8), torch.arange(6) % 3, judge()
    crops, losses = lowest_loss_crops(teacher, x, y, generator(0), crops=4)
    torch.testing.assert_close(losses, F.cross_entropy(teacher(crops), y, reduction="none").detach())
    drawn = lowest_loss_crops(teacher, x, y, generator(0), crops=4, scale=(0.08, 1.0))[1]
    assert torch.equal(drawn, losses)
    more = lowest_loss_crops(teacher, x.repeat_interleave(4, 0), y.repeat_interleave(4), generator(0), crops=1)[1]
    torch.testing.assert_close(more.reshape(6, 4).amin(1), losses)


def test_parts_of_an_image_are_judged_in_its_size() -> None:
    x, y = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    crops, losses = lowest_loss_crops(judge(), x, y, generator(0), crops=2, factor=2)
    assert crops.shape == (6, 1, 4, 4)
    seen = F.interpolate(crops, size=(8, 8), mode="bilinear")
    torch.testing.assert_close(losses, F.cross_entropy(judge()(seen), y, reduction="none").detach())
    with pytest.raises(DataError, match="cannot be parted into 3 x 3; use factor=1"):
        lowest_loss_crops(judge(), x, y, generator(0), factor=3)


def test_the_lowest_of_each_class() -> None:
    losses = torch.tensor([3.0, 1.0, 2.0, 0.5, 0.7, 0.6])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    assert lowest_of_each(losses, labels, torch.tensor([2, 1])).tolist() == [1, 2, 3]


def test_without_crops_the_real_images_of_lowest_loss_are_chosen() -> None:
    data, taught = pictures(), fitted()
    method = RDED(crops=1, scale=(1.0, 1.0))
    made = method.distill(data, Budget(per_class=4), RECIPE, Context(), taught)
    train = data.train
    losses = F.cross_entropy(taught.model(train.prepare(train.inputs)), train.labels, reduction="none")
    for c in range(3):
        own = (train.labels == c).nonzero().flatten()
        best = own[losses[own].argsort()[:4]]
        chosen = made.dataset.inputs[made.dataset.labels == c]
        torch.testing.assert_close(chosen, train.inputs[best].float(), atol=1e-3, rtol=1e-5)
    assert made.teacher is not None
    assert (made.teacher.temperature, made.teacher.loss) == (20.0, "kl")
    assert made.recipe.augment == ("resized_crop(scale=(0.5, 1.0))", "flip", "cutmix")


def test_four_crops_make_an_image() -> None:
    made = RDED(factor=2).distill(pictures(), Budget(per_class=2), RECIPE, Context(), fitted())
    assert made.dataset.inputs.shape == (6, 1, 8, 8)


def test_more_crops_than_images() -> None:
    with pytest.raises(
        BudgetError, match=r"6 images of 4 crops need 24 real images of class 'cat', but 20 are looked at"
    ):
        RDED(factor=2).distill(pictures(), Budget(per_class=6), RECIPE, Context(), fitted())


def test_options() -> None:
    with pytest.raises(ModicumError, match="'rded' option crops=0; expected an integer > 0"):
        RDED(crops=0)
    with pytest.raises(ModicumError, match="scale"):
        RDED(views=(0.0, 1.0))
