import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import generator
from modicum.data import Crop, Cutout, Draw, make_augment, mixed_loss, mixed_targets
from modicum.errors import ModicumError, TrainingError

SHAPE = (3, 8, 10)
EVERY = ("crop(padding=2)", "flip", "cutout(size=3)", "color", "mixup")


def batch(n: int = 6, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=generator(0, "x")).to(dtype)


@pytest.mark.parametrize("spec", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_dtype_are_kept_and_inputs_are_not_written(spec: str, dtype: torch.dtype) -> None:
    augment, x = make_augment((spec,), SHAPE), batch(dtype=dtype)
    before = x.clone()
    out = augment.apply(x, augment.draw(6, generator(0)))
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert torch.equal(x, before)
    assert not torch.equal(out, x)


@pytest.mark.parametrize("spec", EVERY)
def test_the_same_generator_gives_the_same_bits(spec: str) -> None:
    augment, x = make_augment((spec,), SHAPE), batch()
    before = torch.get_rng_state()
    one, two, other = (augment.apply(x, augment.draw(6, generator(seed))) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 1000))
def test_crop_equals_a_loop_over_images(n: int, h: int, w: int, padding: int, seed: int) -> None:
    crop, x = Crop(padding), torch.randn(n, 2, h, w)
    at = crop.draw(n, (2, h, w), generator(seed))
    loop = [
        F.pad(i, (padding,) * 4)[:, t : t + h, left : left + w] for i, (t, left) in zip(x, at.tolist(), strict=True)
    ]
    assert torch.equal(crop.apply(x, at), torch.stack(loop))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(0, 1000))
def test_cutout_equals_a_loop_over_images(n: int, h: int, w: int, size: int, seed: int) -> None:
    cutout, x = Cutout(size), torch.randn(n, 2, h, w)
    center = cutout.draw(n, (2, h, w), generator(seed))
    loop = x.clone()
    for image, (row, column) in zip(loop, center.tolist(), strict=True):
        top, left = row - size // 2, column - size // 2
        image[:, max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 0
    assert torch.equal(cutout.apply(x, center), loop)


def test_flip_and_color_equal_a_loop_over_images() -> None:
    augment, x = make_augment(("flip", "color(brightness=0.5, contrast=0.4, saturation=0.3)"), SHAPE), batch(64)
    draw = augment.draw(64, generator(0))
    flips, colors = draw.parameters
    assert 0 < int(flips.sum()) < 64
    for out, image, flip, (b, s, c) in zip(augment.apply(x, draw), x, flips, colors.tolist(), strict=True):
        image = (image.flip(2) if flip else image) + b
        image = (image - image.mean(0)) * s + image.mean(0)
        torch.testing.assert_close(out, (image - image.mean()) * c + image.mean(), rtol=1e-5, atol=1e-5)
    assert float(colors[:, 0].abs().max()) <= 0.5
    assert float((colors[:, 1] - 1).abs().max()) <= 0.3
    assert float((colors[:, 2] - 1).abs().max()) <= 0.4


def test_identity_cases() -> None:
    x = batch()
    center = torch.full((6, 2), 2)
    assert torch.equal(Crop(2).apply(x, center), x)
    color = make_augment(("color(brightness=0, contrast=0, saturation=0)",), SHAPE)
    torch.testing.assert_close(color(x, generator(0)), x)
    flip = make_augment(("flip",), SHAPE)
    draw = flip.draw(6, generator(0))
    assert torch.equal(flip.apply(flip.apply(x, draw), draw), x)
    assert torch.equal(make_augment((), SHAPE)(x, generator(0)), x)


def test_every_offset_and_every_center_is_reached() -> None:
    offsets = Crop(2).draw(2000, SHAPE, generator(0))
    assert len(offsets.unique(dim=0)) == 25
    assert (int(offsets.min()), int(offsets.max())) == (0, 4)
    centers = Cutout(3).draw(5000, SHAPE, generator(0))
    assert len(centers.unique(dim=0)) == 80
    assert centers.max(0).values.tolist() == [7, 9]


def test_a_part_of_the_batch_gets_its_part_of_the_draw() -> None:
    augment, x = make_augment(EVERY[:4], SHAPE), batch(8)
    draw = augment.draw(8, generator(0))
    halves = [augment.apply(x[part], draw[part]) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(torch.cat(halves), augment.apply(x, draw), rtol=0, atol=0)


def test_channels_last_stays() -> None:
    augment, x = make_augment(EVERY[:4], SHAPE), batch()
    draw = augment.draw(6, generator(0))
    last = augment.apply(x.contiguous(memory_format=torch.channels_last), draw)
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, augment.apply(x, draw))


def test_mixup_equals_its_definition_in_inputs_and_targets() -> None:
    augment, x = make_augment(("mixup(alpha=1.0)",), SHAPE), batch()
    draw = augment.draw(6, generator(3))
    assert draw.pair is not None
    assert sorted(draw.pair.tolist()) == list(range(6))
    assert 0 < draw.lam < 1
    torch.testing.assert_close(augment.apply(x, draw), draw.lam * x + (1 - draw.lam) * x[draw.pair])
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    mixed = mixed_loss(lambda y: F.cross_entropy(logits, y, reduction="none"), targets, draw)
    soft = mixed_targets(targets, draw, 4)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    torch.testing.assert_close(mixed, F.cross_entropy(logits, soft, reduction="none"))
    torch.testing.assert_close(mixed_targets(F.one_hot(targets, 4).float(), draw, 4), soft)


def test_nothing_mixed_changes_no_target() -> None:
    targets = torch.tensor([1, 2])
    assert mixed_targets(targets, Draw(()), 4) is targets
    assert torch.equal(mixed_loss(lambda y: y + 0.5, targets, Draw(())), targets + 0.5)


def test_lam_follows_a_beta_distribution() -> None:
    augment, g = make_augment(("mixup(alpha=0.4)",), SHAPE), generator(0)
    lam = torch.tensor([augment.draw(1, g).lam for _ in range(4000)])
    assert abs(float(lam.mean()) - 0.5) < 0.02
    assert abs(float(lam.var()) - 1 / (4 * (2 * 0.4 + 1))) < 0.01
    assert make_augment(("mixup(alpha=1e-8)",), SHAPE).draw(1, g).lam in (0, 1)


def test_mixup_works_on_tables() -> None:
    augment = make_augment(("mixup",), (5,))
    assert augment.apply(torch.rand(4, 5), augment.draw(4, generator(0))).shape == (4, 5)


@pytest.mark.parametrize(
    "specs, shape, message",
    [
        (("crops",), SHAPE, "augmentation 'crops' is unknown; did you mean 'crop'\\? expected crop, flip, cutout"),
        (("crop(pad=3)",), SHAPE, "augmentation 'crop' has no option 'pad'; its options are padding"),
        (("flip(p=3)",), SHAPE, "augmentation 'flip' has no option 'p'; its options are none"),
        (("crop(padding=0)",), SHAPE, "augmentation 'crop': padding=0; expected px >= 1"),
        (("cutout(size=True)",), SHAPE, "augmentation 'cutout': size=True; expected px >= 1"),
        (("color(contrast=-1)",), SHAPE, "augmentation 'color': contrast=-1; expected a number >= 0"),
        (("mixup(alpha=0)",), SHAPE, "augmentation 'mixup': alpha=0; expected a number > 0"),
        (("flip",), (5,), "augmentation 'flip' is for images, but an input has shape \\(5,\\); only mixup fits"),
    ],
)
def test_errors(specs: tuple[str, ...], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        make_augment(specs, shape)


def test_errors_of_use() -> None:
    mix, crop = make_augment(("mixup",), SHAPE), make_augment(("crop",), SHAPE)
    with pytest.raises(TrainingError, match="mixup changes the targets too"):
        mix(batch(), generator(0))
    with pytest.raises(TrainingError, match="mixup and cutmix pair inputs of the whole batch"):
        mix.draw(6, generator(0))[:3]
    with pytest.raises(TrainingError, match=r"shape \(6, 3, 8, 10\) does not fit .* drawn for 5"):
        crop.apply(batch(), crop.draw(5, generator(0)))
    with pytest.raises(TrainingError, match="does not fit"):
        crop(batch()[:, :1], generator(0))
