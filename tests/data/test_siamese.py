import pytest
import torch
import torch.nn.functional as F

from modicum.context import generator
from modicum.data.siamese import FAMILIES, Transforms, apply_dsa, draw_dsa, parse_strategy
from modicum.errors import ModicumError, TrainingError


def one(name: str, *numbers: float, groups: int = 1) -> Transforms:
    u = torch.tensor([[*numbers, 0.0, 0.0, 0.0][:3]]).expand(groups, 3)
    return Transforms((name,), torch.zeros(groups, dtype=torch.long), u)


def images(n: int = 4, side: int = 8, channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=generator(0, "images"), dtype=torch.float64)


@pytest.mark.parametrize("name", FAMILIES)
def test_real_and_synthetic_images_of_a_class_get_the_same_transform(name: str) -> None:
    draw = draw_dsa((name,), 3, generator(1))
    x = images(1).expand(6, -1, -1, -1)
    out = apply_dsa(x, draw, torch.tensor([0, 1, 2, 0, 1, 2]))
    torch.testing.assert_close(out[:3], out[3:], rtol=0, atol=0)


def test_groups_of_different_families_equal_one_group_after_another() -> None:
    draw, x, groups = draw_dsa(FAMILIES, 9, generator(1)), images(12), torch.arange(12) % 9
    assert len(draw.family.unique()) > 3
    out = apply_dsa(x, draw, groups)
    for i, g in enumerate(groups.tolist()):
        alone = Transforms((FAMILIES[int(draw.family[g])],), torch.zeros(1, dtype=torch.long), draw.numbers[g : g + 1])
        torch.testing.assert_close(out[i : i + 1], apply_dsa(x[i : i + 1], alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_to_the_pixels(name: str) -> None:
    x = images(2, 6).requires_grad_()
    draw = draw_dsa((name,), 2, generator(2))
    assert torch.autograd.gradcheck(lambda pixels: apply_dsa(pixels, draw), (x,), atol=1e-5)


def test_a_cut_out_pixel_has_no_gradient() -> None:
    x = images(1).requires_grad_()
    out = apply_dsa(x, one("cutout", 0.5, 0.5))
    out.sum().backward()
    assert x.grad is not None
    hole = out[0, 0] == 0
    assert int(hole.sum()) == 16
    assert bool((x.grad[0, :, hole] == 0).all())
    assert bool((x.grad[0, :, ~hole] == 1).all())


@pytest.mark.parametrize(
    "draw",
    [
        one("rotate", 0.5),
        one("scale", *[(1 - 1 / 1.2) / (1.2 - 1 / 1.2)] * 2),
        one("crop", 0.5, 0.5),
        one("color", 0.5, 0.5, 0.5),
        one("flip", 0.9),
        draw_dsa((), 1, generator(0)),
    ],
)
def test_identity_cases(draw: Transforms) -> None:
    x = images(1, 9)
    torch.testing.assert_close(apply_dsa(x, draw), x, rtol=1e-6, atol=1e-6)


def test_flip_twice_is_the_identity() -> None:
    x, draw = images(1), one("flip", 0.1)
    assert torch.equal(apply_dsa(x, draw), x.flip(3))
    assert torch.equal(apply_dsa(apply_dsa(x, draw), draw), x)


def test_warps_equal_the_kernels_of_pytorch() -> None:
    x = images(1, 9)
    s = [u * (1.2 - 1 / 1.2) + 1 / 1.2 for u in (0.9, 0.2)]
    theta = torch.tensor([[[s[0], 0, 0], [0, s[1], 0]]], dtype=torch.float64)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    expected = F.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(apply_dsa(x, one("scale", 0.9, 0.2)), expected, rtol=1e-6, atol=1e-6)
    angle = torch.tensor((0.9 - 0.5) * 30).deg2rad()
    theta = torch.tensor([[[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]]], dtype=torch.float64)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    expected = F.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(apply_dsa(x, one("rotate", 0.9)), expected, rtol=1e-5, atol=1e-5)


def test_ranges_on_28_and_32_px() -> None:
    u = torch.rand(4000, 3, generator=generator(0))
    for side in (28, 32):
        x = torch.zeros(len(u), 1, side, side)
        x[:, :, side // 2, side // 2] = 1
        moved = apply_dsa(x, Transforms(("crop",), torch.zeros(len(u), dtype=torch.long), u)).flatten(1).argmax(1)
        offsets = torch.stack([moved // side, moved % side], 1) - side // 2
        assert (int(offsets.min()), int(offsets.max())) == (-4, 4)
        assert len(offsets.unique(dim=0)) == 81
        holes = apply_dsa(torch.ones_like(x), Transforms(("cutout",), torch.zeros(len(u), dtype=torch.long), u))
        sizes = (holes == 0).flatten(1).sum(1)
        assert (int(sizes.min()), int(sizes.max())) == ((side // 4) ** 2, (side // 2) ** 2)


def test_one_family_for_a_batch_and_parameters_for_each_image() -> None:
    draw = draw_dsa(FAMILIES, 50, generator(3), one_family=True)
    assert len(draw.family.unique()) == 1
    assert len(draw.numbers.unique(dim=0)) == 50


def test_inputs_are_not_written_and_the_dtype_stays() -> None:
    for name in FAMILIES:
        for dtype in (torch.float32, torch.bfloat16):
            x = images().to(dtype)
            before = x.clone()
            assert apply_dsa(x, draw_dsa((name,), 4, generator(0))).dtype == dtype
            assert torch.equal(x, before)


def test_errors() -> None:
    with pytest.raises(
        ModicumError, match="family 'rotat' is unknown; did you mean 'rotate'\\? expected 'none' or some"
    ):
        parse_strategy("color_rotat")
    with pytest.raises(ModicumError, match="names a family twice"):
        parse_strategy("color_crop_color")
    with pytest.raises(TrainingError, match=r"must have shape \(n, channels, height, width\), got \(2, 3\)"):
        apply_dsa(torch.rand(2, 3), draw_dsa(FAMILIES, 2, generator(0)))
    with pytest.raises(TrainingError, match="4 images need as many draws, got 2"):
        apply_dsa(images(), draw_dsa(FAMILIES, 2, generator(0)))
