import pytest
import torch

import modicum
from modicum.context import generator
from modicum.data import VIEWS, Augment, Blur, Flip, Gray, Jitter, ResizedCrop, Solarize, make_views, standardized
from modicum.dataset import Dataset, Info
from modicum.errors import ModicumError
from modicum.flops import count_flops


def colored(n: int = 24) -> Dataset:
    pixels = torch.randint(256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator(0, "x"))
    return standardized(Dataset(pixels, info=Info("unlabeled", "image")))


def kinds(augment: Augment) -> set[type]:
    return {type(operation) for operation in augment.operations}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("data", [colored(), modicum.load("digits").train[:24]], ids=["color", "gray"])
def test_every_set_on_color_and_gray_images(name: str, data: Dataset) -> None:
    x = data.prepare(data.inputs)
    before, views = x.clone(), make_views(name, data)
    one, two = views(x, 2, generator(0)), views(x, 2, generator(0))
    assert torch.equal(x, before)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
        assert a.shape == x.shape
        assert bool(a.isfinite().all())
        assert a.dtype == x.dtype
        assert torch.equal(a, x) is (name == "none")
    assert torch.equal(one[0], one[1]) is (name == "none")


@pytest.mark.parametrize("name", VIEWS)
def test_views_cost_no_counted_operations(name: str) -> None:
    data = colored()
    with count_flops() as counter:
        make_views(name, data)(data.prepare(data.inputs), 2, generator(0))
    assert counter.flops == 0
    assert counter.uncounted == ()


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "none"])
def test_pixels_of_views_stay_in_range(name: str) -> None:
    data = colored()
    for view in make_views(name, data)(data.prepare(data.inputs), 2, generator(0)):
        shape = (1, -1, 1, 1)
        stored = view * torch.tensor(data.info.std).reshape(shape) + torch.tensor(data.info.mean).reshape(shape)
        assert float(stored.min()) > -0.01
        assert float(stored.max()) < 255.01


def test_the_sets_hold_what_was_published() -> None:
    made = {name: make_views(name, colored()).augments for name in VIEWS}
    assert {name: len(views) for name, views in made.items() if len(views) > 1} == {"asymmetric": 2}
    assert kinds(made["symmetric"][0]) == {ResizedCrop, Jitter, Gray, Blur, Flip}
    assert made["symmetric"][0].operations[:2] == (ResizedCrop((0.08, 1.0)), Jitter(0.8, 0.8, 0.8, 0.2))
    assert kinds(made["asymmetric"][0]) == {ResizedCrop, Jitter, Gray, Flip}
    assert Solarize(0.2) in made["asymmetric"][1].operations
    assert Solarize(0.1) in made["vicreg"][0].operations
    assert Flip not in kinds(made["npid"][0])
    assert Jitter(0.4, 0.4, 0.4, 0.4, p=1.0) in made["npid"][0].operations
    assert made["sqrtkl"] == made["weak"]
    assert made["light"][0].operations[:2] == (ResizedCrop((0.5, 1.0)), Jitter(0.8, 0.8, 0.8, 0.2))
    assert not kinds(made["crops"][0]) & {Jitter, Gray, Flip, Solarize}


def test_the_last_set_serves_the_views_that_follow() -> None:
    data = colored()
    views, x = make_views("asymmetric", data), data.prepare(data.inputs)
    g = generator(3)
    expected = [views.augments[i](x, g) for i in (0, 1, 1, 1)]
    for a, b in zip(views(x, 4, generator(3)), expected, strict=True):
        assert torch.equal(a, b)


def test_under_autocast() -> None:
    data = colored()
    views, x = make_views("symmetric", data), data.prepare(data.inputs)
    plain = views(x, 1, generator(0))[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(views(x, 1, generator(0))[0], plain)


def test_augmentations_by_name() -> None:
    data = colored()
    assert make_views(("flip",), data).augments[0].operations == (Flip(),)
    assert make_views((), data).augments[0].operations == ()


def test_errors() -> None:
    with pytest.raises(ModicumError, match="augment='symetric' is unknown; did you mean 'symmetric'\\? expected none"):
        make_views("symetric", colored())
    with pytest.raises(ModicumError, match=r"augment=\('mixup',\) mixes inputs by 'mixup'; a view is of one input"):
        make_views(("mixup",), colored())
    table = Dataset(torch.rand(4, 5), info=Info("unlabeled"))
    with pytest.raises(ModicumError, match="'resized_crop' is for images, but an input has shape"):
        make_views("symmetric", table)


@pytest.mark.parametrize("name", VIEWS)
def test_nothing_is_mixed_up_between_devices(name: str) -> None:
    data = colored()
    there = data.prepare(data.inputs).to("meta")  # an operation with a tensor on the CPU would be refused
    for view in make_views(name, data)(there, 2, generator(0)):
        assert view.device.type == "meta"
        assert view.shape == there.shape
