"""A synthetic set on disk: everything comes back to the bit, what is damaged is refused, other forms hold the samples."""

import dataclasses
import json
import warnings

import pytest
import torch
from PIL import Image

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.distillation import Distilled, Snapshot, Source, Teacher, addressed, evaluation_recipe, zca
from modicum.distillation.artefact import export, is_artefact, load_distilled, read_source, save_distilled
from modicum.distillation.preview import contact_sheet, natural, natural_span, pixels
from modicum.distillation.teaching import Ensemble
from modicum.errors import DataError, ModicumError, StoreError
from modicum.methods import make
from modicum.models import build
from modicum.scores import Budget
from modicum.store import Store
from modicum.training.recipe import Recipe

IMAGES = Info(modality="image", classes=("cat", "dog"), mean=(100.0,), std=(50.0,))


def images(n=4, soft=False, seed=0):
    random = torch.Generator().manual_seed(seed)
    targets = torch.rand(n, 2, generator=random).softmax(1) if soft else torch.arange(n) % 2
    inputs = 255 * torch.rand(n, 1, 8, 8, generator=random)
    return Dataset(inputs, targets, [f"dm-{i}" for i in range(n)], info=IMAGES)


def full():
    """A set with every part there can be."""
    data, start = images(soft=True), images(soft=True, seed=1)
    recipe = Recipe("mlp(hidden=8)", steps=3, rates=(0.1, 0.2, 0.05), shuffle=False, nesterov=False, augment=("flip",))
    network = build("convnet(width=4)", data, seed=5)
    whitening = zca(255 * torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(2)), 0.1)
    return Distilled(
        data,
        recipe,
        "dm(iterations=3)",
        7,
        dataclasses.replace(whitening, scale=255.0),
        {"iteration": [1.0, 2.0], "loss": [0.1, float("nan")]},
        (Snapshot(0, start, evaluation_recipe("mlp", 4)), Snapshot(3, data, recipe)),
        {"bases": torch.rand(2, 3), "addresses": torch.arange(4)},
        Teacher(network, "convnet(width=4)", 4.0, "mse"),
    )


def same(a, b):
    assert torch.equal(a.inputs, b.inputs)
    assert a.inputs.dtype == b.inputs.dtype
    assert torch.equal(a.targets, b.targets)
    assert a.ids.tolist() == b.ids.tolist()
    assert a.info == b.info


def test_everything_comes_back_to_the_bit(tmp_path):
    made = full()
    source = Source("digits", "label", 100, "abc", 90, (0.0, 255.0))
    assert not is_artefact(tmp_path)
    assert save_distilled(made, tmp_path / "tiny", source) == tmp_path / "tiny"
    again = load_distilled(tmp_path / "tiny")
    same(again.dataset, made.dataset)
    assert again.recipe == made.recipe
    assert (again.method, again.seed) == (made.method, made.seed)
    assert repr(again.history) == repr(made.history)  # NaN included
    for name in ("mean", "forward", "inverse"):
        assert torch.equal(getattr(again.whitening, name), getattr(made.whitening, name))
    assert (again.whitening.eps, again.whitening.scale) == (0.1, 255.0)
    assert [s.iteration for s in again.snapshots] == [0, 3]
    for one, other in zip(again.snapshots, made.snapshots):
        same(one.dataset, other.dataset)
        assert one.recipe == other.recipe
    assert {k: v.tolist() for k, v in again.stored.items()} == {k: v.tolist() for k, v in made.stored.items()}
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again.teacher.logits(x), made.teacher.logits(x))
    assert (again.teacher.temperature, again.teacher.loss) == (4.0, "mse")
    assert read_source(tmp_path / "tiny") == source
    assert Store(tmp_path / "tiny").verify() == []


def test_several_teachers_come_back(tmp_path):
    data = images()
    teacher = Ensemble([build("mlp(hidden=4)", data, seed=1), build("convnet(width=4)", data, seed=2)])
    made = Distilled(
        data, Recipe("mlp"), "g-vbsm", teacher=Teacher(teacher, "mlp(hidden=4) + convnet(width=4)", 1.0, "mse")
    )
    again = load_distilled(save_distilled(made, tmp_path))
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again.teacher.logits(x), made.teacher.logits(x))


def test_a_plain_set_leaves_no_empty_files(tmp_path):
    made = Distilled(images(), Recipe("mlp"), "dm")
    save_distilled(full(), tmp_path)
    save_distilled(made, tmp_path)
    assert Store(tmp_path).names() == ["distilled.json", "history.json", "preview.png", "samples.safetensors"]
    again = load_distilled(tmp_path)
    assert (again.seed, again.whitening, again.teacher, again.snapshots, again.stored) == (None, None, None, (), {})
    assert read_source(tmp_path) is None


def test_the_same_training_from_the_folder(tmp_path):
    made = Distilled(images(), Recipe("mlp(hidden=8)", steps=4, batch_size=2, shuffle=False), "dd", seed=3)
    save_distilled(made, tmp_path)
    x = torch.rand(5, 1, 8, 8)
    direct, loaded = modicum.fit(made).model(x), modicum.fit(tmp_path).model(x)
    assert torch.equal(direct, loaded)
    # a set made for one initialization is trained from it, whatever the seed of the context
    assert torch.equal(direct, modicum.fit(tmp_path, ctx=Context(seed=9)).model(x))


def test_refused(tmp_path):
    with pytest.raises(
        StoreError, match=r"holds no distilled\.json; expected the folder of a finished `modicum distill`"
    ):
        load_distilled(tmp_path)
    made = Distilled(images(), Recipe("mlp"), "dm")
    with pytest.raises(ModicumError, match="recipe model is a factory, which cannot be saved"):
        save_distilled(dataclasses.replace(made, recipe=Recipe(lambda: torch.nn.Linear(2, 2))), tmp_path)
    teacher = Teacher(build("mlp(hidden=4)", made.dataset), "mlp(hidden=5)")
    with pytest.raises(ModicumError, match=r"teacher description='mlp\(hidden=5\)' builds another network"):
        save_distilled(dataclasses.replace(made, teacher=teacher), tmp_path)
    assert not is_artefact(tmp_path)
    save_distilled(made, tmp_path)
    path = tmp_path / "samples.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"samples\.safetensors is damaged"):
        load_distilled(tmp_path)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"format": 99}, "has the format 99; this version reads 1"),
        ({"recipe": {"colour": 1}}, "does not describe a distilled set"),
        ({"ids": [1]}, "ids has 1 rows but inputs has 4"),
    ],
)
def test_a_foreign_description_is_refused(tmp_path, change, told):
    save_distilled(Distilled(images(), Recipe("mlp"), "dm"), tmp_path)
    store = Store(tmp_path)
    store.write_json("distilled.json", {**store.read_json("distilled.json"), **change})
    with pytest.raises(ModicumError, match=told):
        load_distilled(tmp_path)


def test_interrupted_while_saving_is_not_an_artefact(tmp_path, monkeypatch):
    made = Distilled(images(), Recipe("mlp"), "dm")
    save_distilled(made, tmp_path)

    def refuse(*_):
        raise StoreError("no space")

    monkeypatch.setattr(Store, "write_tensors", refuse)
    with pytest.raises(StoreError):
        save_distilled(made, tmp_path)
    assert not is_artefact(tmp_path)


def whitened_set():
    real = (255 * torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    whitening = zca(real, 0.1)
    info = Info(modality="image", classes=("cat", "dog"))
    return real, Distilled(
        Dataset(whitening.whiten(real[:6]), torch.arange(6) % 2, info=info), Recipe("mlp"), "dm", whitening=whitening
    )


def test_whitening_is_undone_in_other_forms(tmp_path):
    real, made = whitened_set()
    assert torch.allclose(natural(made).inputs, real[:6].float(), atol=0.05)
    (file,) = export(made, tmp_path / "tiny.npz")
    loaded = modicum.load(str(file), valid=0, test=0).train
    assert torch.allclose(loaded.inputs, real[:6].float(), atol=0.05)
    for name in ("tiny.parquet", "pngs"):
        export(made, tmp_path / name, (0.0, 255.0))
        loaded = modicum.load(str(tmp_path / name), valid=0, test=0).train
        order = loaded.ids.astype(int).argsort()
        assert torch.equal(loaded.inputs[order], real[:6])
        assert [loaded.info.classes[i] for i in loaded.labels[order]] == ["cat", "dog"] * 3


def test_soft_labels_need_a_form_that_holds_them(tmp_path):
    made = Distilled(images(soft=True), Recipe("mlp"), "dm")
    with pytest.raises(DataError, match="images with hard labels"):
        export(made, tmp_path / "pngs")
    export(made, tmp_path / "tiny.npz")
    again = modicum.load(str(tmp_path / "tiny.npz"), valid=0, test=0).train
    assert torch.equal(again.targets, made.dataset.targets)


def test_pictures():
    assert natural_span(images()) == (float(images().inputs.min()), float(images().inputs.max()))
    assert pixels(torch.tensor([float("nan"), 300.0]), (0.0, 255.0)).tolist() == [0, 255]
    with pytest.raises(DataError, match="is empty"):
        pixels(torch.zeros(1), (1.0, 1.0))
    sheet = contact_sheet(Distilled(images(), Recipe("mlp"), "dm"), (0.0, 255.0))
    import io

    assert Image.open(io.BytesIO(sheet)).size == (2 + 2 * 66, 2 + 2 * 66)  # two rows of two, eight times as large
    table = Dataset(torch.rand(2, 3), torch.tensor([0, 1]), info=Info(classes=("a", "b")))
    with pytest.raises(DataError, match="expected images with 1 or 3 channels"):
        contact_sheet(Distilled(table, Recipe("mlp"), "dm"))


def test_tables_have_no_preview(tmp_path):
    table = Dataset(torch.rand(2, 3), torch.tensor([0, 1]), info=Info(classes=("a", "b")))
    save_distilled(Distilled(table, Recipe("linear"), "dm"), tmp_path)
    assert not (tmp_path / "preview.png").exists()
    assert json.loads((tmp_path / "distilled.json").read_text())["samples"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(load_distilled(tmp_path), tmp_path / "tiny.csv")


def test_an_earlier_moment_keeps_what_its_samples_are_computed_from(tmp_path):
    data = modicum.load("digits", limit=200)
    method = make("bptt(iterations=4, steps=2, bases=4, batch_syn=2, batch_real=4, model='linear')")
    made = method.distill(data, Budget(per_class=1), Recipe(model="linear"), Context())
    again = load_distilled(save_distilled(made, tmp_path / "tiny"))
    for whole in (made, again):
        early = whole.at(whole.snapshots[1])
        assert early.bytes < early.dataset.inputs.numel() * 4
        assert not torch.equal(early.stored["bases"], whole.stored["bases"])
        decoded = addressed(early.stored["addresses"], early.stored["bases"], (1, 8, 8), 2)
        torch.testing.assert_close(early.dataset.prepare(early.dataset.inputs), decoded, rtol=1e-4, atol=1e-4)
        assert whole.at(whole.snapshots[-1]).bytes == whole.bytes
