import colorsys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context, generator
from modicum.data import Blur, Gray, Jitter, Pixels, ResizedCrop, Solarize, cutmix, make_augment, mixed_targets
from modicum.data.load import standardized
from modicum.dataset import Dataset, Info
from modicum.errors import ModicumError
from modicum.training.fit import fit
from modicum.training.many import fit_many
from modicum.training.recipe import Recipe

SHAPE = (3, 9, 12)
EVERY = ("resized_crop", "jitter", "gray", "blur", "solarize")


def images(n: int = 8, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.rand(n, *shape, generator=generator(0, "x"))


def stored(n: int = 16, shape: tuple[int, ...] = SHAPE) -> Dataset:
    pixels = (images(n, shape) * 256).to(torch.uint8)
    info = Info(modality="image", classes=("a", "b"))
    return standardized(Dataset(pixels, torch.arange(n) % 2, info=info))


def only(**change: float) -> Jitter:
    return Jitter(**({"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "p": 1.0} | change))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 1000))
def test_resized_crop_equals_a_loop_over_images(h: int, w: int, seed: int) -> None:
    crop, x = ResizedCrop((0.05, 1.0)), images(6, (2, h, w))
    at = crop.draw(6, (2, h, w), generator(seed))
    loop = [
        F.interpolate(x[i : i + 1, :, t : t + a, left : left + b], size=(h, w), mode="bilinear", antialias=True)
        for i, (t, left, a, b) in enumerate(at.long().tolist())
    ]
    torch.testing.assert_close(crop.apply(x, at), torch.cat(loop), rtol=0, atol=3e-6)


def test_resized_crop_draws_what_it_says() -> None:
    h, w = 40, 60
    top, left, height, width = ResizedCrop((0.2, 0.6), (0.5, 2.0)).draw(4000, (3, h, w), generator(0)).T
    assert float(top.min()) == 0 == float(left.min())
    assert float((top + height).max()) == h
    assert float((left + width).max()) == w
    share, ratio = height * width / (h * w), width / height
    assert 0.18 < float(share.min()) < 0.22
    assert 0.58 < float(share.max()) < 0.62
    assert abs(float(share.mean()) - 0.4) < 0.02
    assert 0.48 < float(ratio.min()) < 0.55
    assert 1.9 < float(ratio.max()) < 2.1


@pytest.mark.parametrize(
    "shape, ratio, expected",
    [
        ((3, 10, 40), (0.75, 4 / 3), [0, 13, 10, 13]),  # too wide: full height, 4/3 of it wide
        ((3, 40, 10), (0.75, 4 / 3), [13, 0, 13, 10]),
        ((3, 8, 8), (1.0, 1.0), [0, 0, 8, 8]),
    ],
)
def test_resized_crop_falls_back_to_the_middle(
    shape: tuple[int, ...], ratio: tuple[float, float], expected: list[int]
) -> None:
    at = ResizedCrop((1.0, 1.0), ratio).draw(5, shape, generator(0))
    assert at.tolist() == [expected] * 5


def test_the_whole_image_is_left_as_it_is() -> None:
    x = images()
    whole = torch.tensor([[0.0, 0.0, 9.0, 12.0]]).expand(8, 4)
    torch.testing.assert_close(ResizedCrop().apply(x, whole), x, rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    "option, formula",
    [
        ("brightness", lambda x, f: x * f),
        ("contrast", lambda x, f: f * x + (1 - f) * gray(x).mean()),
        ("saturation", lambda x, f: f * x + (1 - f) * gray(x)),
    ],
)
def test_a_change_of_color_equals_its_formula(option: str, formula) -> None:
    jitter, x = only(**{option: 0.9}), images()
    drawn = jitter.draw(8, SHAPE, generator(1))
    amounts = drawn[:, 5 + ("brightness", "contrast", "saturation").index(option)]
    assert len(amounts.unique()) == 8
    loop = [formula(image, float(f)).clamp(0, 1) for image, f in zip(x, amounts)]
    torch.testing.assert_close(jitter.apply(x, drawn), torch.stack(loop), rtol=0, atol=1e-6)


def gray(image: torch.Tensor) -> torch.Tensor:
    return 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def test_hue_equals_that_of_the_standard_library() -> None:
    jitter, x = only(hue=0.5), images(6, (3, 4, 5))
    x[0] = 0.3  # gray, black, white and full colors
    x[1] = x[1].round()
    drawn = jitter.draw(6, (3, 4, 5), generator(2))
    out = jitter.apply(x, drawn)
    for image, turned, by in zip(x, out, drawn[:, 8].tolist()):
        for before, after in zip(image.flatten(1).T.tolist(), turned.flatten(1).T.tolist()):
            h, s, v = colorsys.rgb_to_hsv(*before)
            assert after == pytest.approx(colorsys.hsv_to_rgb((h + by) % 1, s, v), abs=2e-6)


def test_changes_follow_each_other_in_a_random_order_with_clamps_between() -> None:
    jitter, x, orders = Jitter(p=1.0), images(), set()
    for seed in range(30):
        drawn = jitter.draw(8, SHAPE, generator(seed))
        assert len(drawn[:, 1:5].unique(dim=0)) == 1
        order = drawn[0, 1:5].argsort().tolist()
        orders.add(tuple(order))
        y = x
        for change in order:
            name = ("brightness", "contrast", "saturation", "hue")[change]
            y = only(**{name: 0.4}).apply(y, drawn)
        torch.testing.assert_close(jitter.apply(x, drawn), y)
    assert len(orders) > 10


def test_unbounded_pixels_are_not_clamped() -> None:
    drawn = only(brightness=0.9).draw(8, SHAPE, generator(0))
    out = Jitter(0.9, 0.0, 0.0, 0.0, bounded=False).apply(images(), drawn)
    assert float(out.max()) > 1


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_equals_a_convolution(sigma: float) -> None:
    x = images(2, (3, 45, 40))  # reaches 2 px
    offsets = torch.arange(-2, 3)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    expected = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel.expand(3, 1, 5, 5), groups=3)
    out = Blur().apply(x, torch.tensor([[1.0, sigma]] * 2))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_blur_of_tiny_images_and_of_constants() -> None:
    assert Blur().apply(images(2, (3, 1, 1)), torch.ones(2, 2)).shape == (2, 3, 1, 1)
    flat = torch.full((2, 3, 2, 7), 0.4)
    torch.testing.assert_close(Blur().apply(flat, torch.ones(2, 2)), flat)


def test_gray_and_solarize_equal_their_definitions() -> None:
    x = images()
    out = Gray().apply(x, torch.ones(8, 1))
    for image, made in zip(x, out):
        torch.testing.assert_close(made, gray(image).expand_as(image))
    turned = Solarize(threshold=0.7).apply(x, torch.ones(8, 1))
    assert torch.equal(turned, torch.where(x >= 0.7, 1 - x, x))


@pytest.mark.parametrize("spec", ["jitter(p=0.3)", "gray(p=0.3)", "blur(p=0.3)", "solarize(p=0.3)"])
def test_a_share_of_the_images_is_changed_and_the_rest_keeps_its_bits(spec: str) -> None:
    augment, x = make_augment((spec,), SHAPE), images(400)
    draw = augment.draw(400, generator(0))
    changed = draw.parameters[0][:, 0].bool()
    assert 0.2 < float(changed.float().mean()) < 0.4
    out = augment.apply(x, draw)
    assert torch.equal((out != x).flatten(1).any(1), changed)
    alone = augment.apply(x[changed], type(draw)((draw.parameters[0][changed],)))
    torch.testing.assert_close(out[changed], alone, rtol=0, atol=0)


@pytest.mark.parametrize("share, same", [(0.0, True), (1.0, False)])
def test_none_and_all(share: float, same: bool) -> None:
    for name in ("jitter", "gray", "blur", "solarize"):
        augment, x = make_augment((f"{name}(p={share})",), SHAPE), images()
        assert bool((augment(x, generator(0)) == x).all((1, 2, 3)).all()) is same


@pytest.mark.parametrize("spec", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_dtype_and_inputs_are_kept(spec: str, dtype: torch.dtype) -> None:
    augment, x = make_augment((spec,), SHAPE), images(64).to(dtype)
    before, state = x.clone(), torch.get_rng_state()
    one, two, other = (augment(x, generator(seed)) for seed in (1, 1, 2))
    assert one.shape == x.shape
    assert one.dtype == dtype
    assert bool(one.isfinite().all())
    assert torch.equal(x, before)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_parts_of_a_batch_and_channels_last() -> None:
    data = stored()
    augment, x = make_augment((*EVERY, "crop(padding=1)", "flip"), SHAPE, data), data.prepare(data.inputs)
    draw = augment.draw(16, generator(0))
    whole = augment.apply(x, draw)
    halves = [augment.apply(x[part], draw[part]) for part in (slice(0, 7), slice(7, 16))]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=0, atol=1e-6)
    last = augment.apply(x.contiguous(memory_format=torch.channels_last), draw)
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, whole, rtol=1e-5, atol=1e-5)


def test_standardized_inputs_are_changed_as_their_pixels_are() -> None:
    data = stored()
    x, pixels = data.prepare(data.inputs), data.inputs.float() / 255
    specs = ("resized_crop", "jitter", "gray", "flip", "blur", "solarize")
    augment, plain = make_augment(specs, SHAPE, data), make_augment(specs, SHAPE)
    draw = augment.draw(16, generator(5))
    expected = data.prepare(plain.apply(pixels, draw) * 255)
    torch.testing.assert_close(augment.apply(x, draw), expected, rtol=0, atol=1e-4)
    back = Pixels.of(data)
    torch.testing.assert_close(back.enter(x), pixels, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.leave(back.enter(x)), x, rtol=0, atol=1e-5)


def test_zeros_of_a_shift_stay_the_mean_between_changes_of_color() -> None:
    data = stored()
    augment = make_augment(("gray(p=1.0)", "cutout(size=30)", "gray(p=1.0)"), SHAPE, data)
    out = augment(data.prepare(data.inputs), generator(0))
    mean, std = torch.tensor(data.info.mean), torch.tensor(data.info.std)
    level = (mean * torch.tensor([0.2989, 0.587, 0.114])).sum()
    expected = ((level - mean) / std)[None, :, None, None].expand_as(out)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_colors_of_images_without_three_channels_stay(channels: int) -> None:
    x = images(8, (channels, 6, 6))
    for spec in ("gray(p=1.0)", "jitter(brightness=0, contrast=0, p=1.0)"):
        assert torch.equal(make_augment((spec,), (channels, 6, 6))(x, generator(0)), x)
    out = make_augment(("jitter(p=1.0)",), (channels, 6, 6))(x, generator(0))
    assert bool((out != x).flatten(1).any(1).all())


def test_how_data_store_pixels() -> None:
    info = Info(modality="image", mean=(0.5,), std=(0.25,))
    unit = Dataset(images(4, (1, 2, 2)), info=Info("unlabeled", "image"))
    assert Pixels.of(stored()) == Pixels(stored().info.mean, stored().info.std, 255.0, True)
    assert Pixels.of(unit) == Pixels(bounded=True)
    assert Pixels.of(unit.replace(inputs=unit.inputs * 3, info=info)) == Pixels((0.5,), (0.25,), 1.0, False)


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 5.0])
@pytest.mark.parametrize("majority", [True, False])
def test_cutmix_pastes_one_box_and_lam_is_what_is_left(alpha: float, majority: bool) -> None:
    x = torch.arange(7.0)[:, None, None, None].expand(7, 3, 8, 10)
    for seed in range(20):
        mixed, pair, lam = cutmix(x, alpha, generator(seed), majority=majority)
        assert sorted(pair.tolist()) == list(range(7))
        assert not majority or lam >= 0.5
        foreign = mixed != x
        moved = pair != torch.arange(7)
        torch.testing.assert_close(mixed, torch.where(foreign, pair[:, None, None, None].float(), x))
        if moved.any():
            assert bool((foreign[moved] == foreign[moved][:1, :1]).all())
            assert float(foreign[moved].float().mean()) == pytest.approx(1 - lam, abs=1e-6)
            rows, columns = foreign[moved][0, 0].any(1), foreign[moved][0, 0].any(0)
            assert torch.equal(foreign[moved][0, 0], rows[:, None] & columns)
            assert int(rows.diff().sum()) <= 2
        again = cutmix(x, alpha, generator(seed), majority=majority)
        assert torch.equal(again[0], mixed)
        assert again[2] == lam


def test_cutmix_in_a_recipe() -> None:
    augment, x = make_augment(("cutmix",), SHAPE), images(6)
    draw = next(d for d in (augment.draw(6, generator(s)) for s in range(50)) if 0.2 < d.lam < 0.8)
    out = augment.apply(x, draw)
    assert draw.box is not None
    top, bottom, left, right = draw.box
    inside = torch.zeros(9, 12, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    assert float(inside.float().mean()) == pytest.approx(1 - draw.lam)
    assert torch.equal(out, torch.where(inside, x[draw.pair], x))
    soft = mixed_targets(torch.arange(6) % 2, draw, 2)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    done = fit(stored(), Recipe("linear", epochs=1, batch_size=8, augment=("jitter", "cutmix")), Context())
    assert done.history["loss"][0] > 0


def test_many_models_see_the_same_pixels_as_one() -> None:
    recipe = Recipe("linear", epochs=2, batch_size=8, lr=0.01, augment=("resized_crop", "jitter", "solarize"))
    data = stored()
    many = fit_many(data, recipe, seeds=[3, 4])
    for seed, each in zip((3, 4), many):
        assert each.history["loss"] == pytest.approx(fit(data, recipe, Context(seed=seed)).history["loss"], rel=1e-4)


@pytest.mark.parametrize(
    "specs, message",
    [
        (("resized_crop(scale=(0, 1))",), r"'resized_crop': scale=\(0, 1\); expected \(least, largest\) share"),
        (("resized_crop(scale=0.5)",), r"'resized_crop': scale=0.5; expected \(least, largest\) share"),
        (("resized_crop(ratio=(2, 1))",), r"'resized_crop': ratio=\(2, 1\); expected .* width over height"),
        (("jitter(hue=0.6)",), r"'jitter': hue=0.6; expected a number in \[0, 0.5\]"),
        (("jitter(brightness=-1)",), "'jitter': brightness=-1; expected a number >= 0"),
        (("gray(p=2)",), r"'gray': p=2; expected a share in \[0, 1\]"),
        (("blur(sigma=(0, 1))",), r"'blur': sigma=\(0, 1\); expected \(least, largest\) px, > 0"),
        (("solarize(threshold=300)",), r"'solarize': threshold=300; expected a number in \[0, 1\]"),
        (("cutmix(alpha=0)",), "'cutmix': alpha=0; expected a number > 0"),
        (("mixup", "cutmix"), "augmentations 'mixup' and 'cutmix' both mix inputs; expected at most one"),
    ],
)
def test_errors(specs: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        make_augment(specs, SHAPE)


def test_errors_of_use() -> None:
    with pytest.raises(ModicumError, match="'cutmix': alpha=-1; expected a number > 0"):
        cutmix(images(), -1, generator(0))
    with pytest.raises(ModicumError, match=r"'cutmix': x has shape \(4, 5\); expected images"):
        cutmix(torch.rand(4, 5), 1.0, generator(0))
    wide = stored().replace(inputs=images(16) * 300)
    make_augment(("jitter",), SHAPE, wide)
    with pytest.raises(ModicumError, match="'solarize' needs to know white, but the stored images reach beyond"):
        make_augment(("solarize",), SHAPE, wide)
