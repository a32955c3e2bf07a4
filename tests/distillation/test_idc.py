from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import IDC, decode_grid, encode_grid
from modicum.distillation.idc import _Run
from modicum.errors import DataError, ModicumError
from modicum.methods import make, spec
from modicum.scores import Budget
from modicum.store import Store
from modicum.training.recipe import Recipe

RECIPE, BUDGET = Recipe(model="convnet(width=4)"), Budget(per_class=2)
FAST = IDC(iterations=2, inner=2, batch_real=8, real_samples=16)


def pictures(channels: int = 1, kind: torch.dtype = torch.uint8) -> Splits:
    x = torch.randint(0, 256, (60, channels, 8, 8), generator=generator(0, "x")).to(kind)
    info = Info(modality="image", classes=tuple("abc"), mean=(127.0,) * channels, std=(70.0,) * channels)
    train = Dataset(x, torch.arange(60) % 3, info=info)
    return Splits(train, train[:6], train[:6])


def images(n: int = 4, side: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 2, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_factor_of_one_changes_nothing() -> None:
    assert torch.equal(decode_grid(images(), 1), images())
    torch.testing.assert_close(encode_grid(images(), 1), images())


def test_constant_patches_become_constant_images_patch_after_patch() -> None:
    patches = torch.arange(18.0).reshape(2, 1, 3, 3)
    tiled = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)
    made = decode_grid(tiled, 3)
    assert made.shape == (18, 1, 12, 12)
    assert torch.equal(made[:, 0, 0, 0], patches.flatten(1).T.flatten())
    torch.testing.assert_close(made, made[:, :, :1, :1].expand_as(made))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(12, 14), st.integers(1, 3))
def test_decoding(factor: int, side: int, m: int) -> None:
    a, b = images(m, side, 1), images(m, side, 2)
    assert decode_grid(a, factor).shape == (factor**2 * m, 2, side, side)
    if side % factor == 0:
        torch.testing.assert_close(decode_grid(a + b, factor), decode_grid(a, factor) + decode_grid(b, factor))
    assert float(decode_grid(a, factor).max()) <= 1


def test_what_does_not_fit_is_padded() -> None:
    made = decode_grid(torch.zeros(1, 1, 13, 13), 2)
    assert float(made[0].max()) == 0
    assert float(made[3, 0, -1, -1]) == 0.5


def test_encoding_and_decoding_constant_images_gives_them_back() -> None:
    x = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 1, 8, 8)
    torch.testing.assert_close(decode_grid(encode_grid(x, 2), 2), x)
    with pytest.raises(ModicumError, match="6 images do not fill grids of 2 x 2; expected a multiple of 4"):
        encode_grid(images(6), 2)


@pytest.mark.parametrize("factor", [0, 3, 1.5, True])
def test_factors_that_do_not_fit(factor: Any) -> None:
    with pytest.raises(
        ModicumError, match=rf"factor={factor!r}; expected an integer from 1 to 2 for images of 8 x 8 px"
    ):
        decode_grid(images(), factor)
    with pytest.raises(DataError, match=r"images have shape \(2, 3\)"):
        decode_grid(torch.rand(2, 3), 1)


@pytest.mark.parametrize("init", ["real", "mix", "noise"])
def test_what_comes_out(init: Any) -> None:
    data = pictures(3)
    made = replace(FAST, init=init).distill(data, BUDGET, RECIPE, Context())
    stored = made.stored["images"]
    assert stored.shape == (6, 3, 8, 8)
    assert 0 <= float(stored.min()) <= float(stored.max()) <= 1
    assert made.dataset.class_counts().tolist() == [8, 8, 8]
    assert made.dataset.ids[:2].tolist() == ["idc-0-0", "idc-0-1"]
    expected = decode_grid(stored, 2).unflatten(0, (4, 6)).transpose(0, 1).flatten(0, 1) * 255
    torch.testing.assert_close(made.dataset.inputs, expected, rtol=1e-4, atol=1e-2)
    assert made.bytes == 6 * 3 * 64 * 4 + 24 * 8
    assert made.recipe.batch_size == 24
    assert made.recipe.augment[-1] == "cutmix"
    assert "color_crop_cutout_flip_scale_rotate" in made.recipe.augment[0]


def test_grey_images_have_their_own_settings() -> None:
    made = FAST.distill(pictures(), BUDGET, RECIPE, Context())
    assert made.recipe.augment == ("dsa(strategy='color_crop')",)
    assert made.method == spec(FAST)


def test_real_samples_shrunk_are_where_mix_starts() -> None:
    data = pictures()
    made = IDC(iterations=1, inner=1, lr_img=1e-30, init="mix").distill(data, Budget(per_class=1), RECIPE, Context())
    x = data.train.inputs.float() / 255
    for c in range(3):
        small = encode_grid(x[data.train.labels == c].repeat(4, 1, 1, 1), 2)[:, :, :4, :4].flatten(1)
        for patch in range(4):
            row, column = 4 * (patch // 2), 4 * (patch % 2)
            own = made.stored["images"][c, :, row : row + 4, column : column + 4].flatten()
            assert float((small - own).abs().max(1).values.min()) < 1e-4


def test_smaller_factors_too() -> None:
    made = replace(FAST, multi=True, batch_made=3).distill(pictures(), BUDGET, RECIPE, Context())
    assert made.dataset.class_counts().tolist() == [10, 10, 10]
    last = made.dataset.inputs[4] / 255
    torch.testing.assert_close(last, made.stored["images"][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("distance", ["l1", "mse"])
def test_it_descends(distance: Any) -> None:
    data = pictures()
    method = IDC(distance=distance, batch_real=20, lr_img="auto", augment="none")
    run = _Run(method, data.train, BUDGET, RECIPE, Context())
    run.metric_name = distance
    run.learn("inputs", run.first_pixels("real"), "auto", momentum=0.5)
    network = run.network(run.random("network"))
    losses = [run.update(network, run.random(0), 0, 0) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    data, method = pictures(3), replace(FAST, iterations=3, early=1)

    class Killed(BaseException):
        pass

    class Dying(Context):
        def loop(self, *args: Any, **options: Any) -> Any:
            for step in super().loop(*args, **options):
                if step == 1:
                    raise Killed
                yield step

    with pytest.raises(Killed):
        method.distill(data, BUDGET, RECIPE, Dying(store=Store(tmp_path), checkpoint_seconds=0))
    resumed = method.distill(data, BUDGET, RECIPE, Context(store=Store(tmp_path), checkpoint_seconds=0))
    whole = method.distill(data, BUDGET, RECIPE, Context())
    assert torch.equal(resumed.stored["images"], whole.stored["images"])


def test_errors() -> None:
    table = Dataset(torch.rand(6, 4), torch.arange(6) % 2, info=Info(classes=("a", "b")))
    with pytest.raises(DataError, match="idc decodes images, but this data set is tabular; use dsa"):
        IDC().distill(Splits(table, table, table), BUDGET, RECIPE, Context())
    with pytest.raises(ModicumError, match="factor=3; expected an integer from 1 to 2"):
        IDC(factor=3).distill(pictures(), BUDGET, RECIPE, Context())
    with pytest.raises(ModicumError, match="lr_img='fast'; expected a number > 0, 'auto' or 'paper'"):
        IDC(lr_img="fast")  # type: ignore[arg-type]
    with pytest.raises(ModicumError, match="cutmix='yes'; expected True, False or 'auto'"):
        IDC(cutmix="yes")  # type: ignore[arg-type]
    with pytest.raises(ModicumError, match="factor=0; expected an integer > 0"):
        make("idc(factor=0)")
