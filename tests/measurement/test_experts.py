import json
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.ledger import Ledger
from modicum.measurement import Experts, ExpertTable
from modicum.measurement import experts as module
from modicum.models import build
from modicum.reading import by_id
from modicum.store import Store
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

SMALL = Experts(count=3, epochs=4, lr=0.1, batch_size=8, model="mlp(hidden=6)", augment="none")
VARIANTS = [
    SMALL,
    replace(SMALL, variant="gsam"),
    replace(SMALL, variant="smooth", momentum=0.9, weight_decay=1e-3, penalty=0.1),
]


def splits(n: int = 30, order: Tensor | None = None) -> Splits:
    draw = generator(0, "data")
    x, y = torch.randn(n, 5, generator=draw), torch.arange(n) % 3
    train = Dataset(x, y, ids=torch.randperm(n, generator=draw).numpy(), info=Info(classes=("a", "b", "c")))
    return Splits(train if order is None else train[order], train[:6], train[:6])


def measured(experts: Experts = SMALL, data: Splits | None = None, **options: object) -> tuple[ExpertTable, Ledger]:
    ctx = Context(**options)  # type: ignore[arg-type]
    return experts.measure(data or splits(), Recipe(), ctx), ctx.ledger


def spent(ledger: Ledger) -> list[object]:
    return [replace(c, seconds=0, peak_bytes=0) for c in ledger.charges]


@pytest.mark.parametrize("experts", VARIANTS, ids=lambda e: e.variant)
def test_every_epoch_of_every_expert_is_another(experts: Experts) -> None:
    table, ledger = measured(experts)
    assert table.weights.shape == (3, 5, 6 * 5 + 6 + 6 * 6 + 6 + 6 * 3 + 3)
    assert table.weights.dtype == torch.float32
    rows = table.weights.flatten(0, 1)
    assert float(torch.cdist(rows, rows).fill_diagonal_(1).min()) > 1e-3  # no aliases
    (charge,) = ledger.charges
    assert (charge.phase, charge.what, charge.labels > 0) == ("choose", "experts", True)
    assert charge.samples == 3 * 4 * 30


def test_the_rows_are_those_of_the_one_training_loop() -> None:
    data = splits()
    table, _ = measured()
    recipe = SMALL.recipe(data.train, Recipe())
    train = data.train[by_id(data.train)]
    for i in range(2):
        seed = generator(0, "expert", i).initial_seed() % 2**31
        first = torch.cat([p.flatten() for p in build(recipe.model, train, seed).parameters()])
        assert torch.equal(table.at(i, 0), first)
        done = fit(train, recipe, Context(seed=seed))
        last = torch.cat([p.detach().flatten() for p in done.model.parameters()])
        torch.testing.assert_close(table.at(i, 4), last, rtol=0, atol=1e-5)


def test_radius_zero_gives_the_plain_experts_and_another_radius_others() -> None:
    plain, zero = measured()[0].weights, measured(replace(SMALL, variant="gsam", rho=0.0))[0].weights
    torch.testing.assert_close(plain, zero, rtol=0, atol=1e-5)
    flat = measured(replace(SMALL, variant="gsam", rho=1.0))[0].weights
    assert float((plain[:, 1:] - flat[:, 1:]).abs().amax()) > 1e-3


@pytest.mark.parametrize("experts", VARIANTS, ids=lambda e: e.variant)
def test_fewer_epochs_are_the_beginning_of_more(experts: Experts) -> None:
    whole, part = measured(experts)[0].weights, measured(replace(experts, stop_after=2))[0].weights
    torch.testing.assert_close(part, whole[:, :3], rtol=0, atol=1e-6)


def test_flat_experts_end_where_the_loss_grows_less() -> None:
    from modicum.measurement import gsam_perturbation

    data = splits(90)
    x, y = data.train.inputs, data.train.labels
    rises = []
    for variant in ("sgd", "gsam"):
        table, _ = measured(replace(SMALL, variant=variant, rho=1.0, alpha=0.0, epochs=30, count=4), data)
        rise = 0.0
        for expert in range(4):
            model = build(SMALL.model, data.train)
            torch.nn.utils.vector_to_parameters(table.at(expert, 30), model.parameters())
            loss = torch.nn.functional.cross_entropy(model(x), y)
            weights = list(model.parameters())
            moved = gsam_perturbation(weights, torch.autograd.grad(loss, weights), 1.0)
            with torch.no_grad():
                for p, e in zip(weights, moved):
                    p.add_(e)
                rise += float(torch.nn.functional.cross_entropy(model(x), y) - loss)
        rises.append(rise)
    assert rises[1] < 0.9 * rises[0]


def test_the_order_of_the_samples_does_not_matter() -> None:
    order = torch.randperm(30, generator=generator(1))
    assert torch.equal(measured()[0].weights, measured(data=splits(order=order))[0].weights)


def test_another_seed_gives_other_experts() -> None:
    assert not torch.equal(measured()[0].weights, measured(seed=1)[0].weights)


@pytest.mark.parametrize("experts", VARIANTS, ids=lambda e: e.variant)
def test_the_cache_holds_one_file_that_is_mapped_and_charged_in_full(
    experts: Experts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, ledger = measured(experts, cache=tmp_path)
    (folder,) = (tmp_path / "experts").iterdir()
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert names == ["experts.json", "experts.safetensors", "manifest.json"]
    assert Store(folder).verify() == []
    described = json.loads((folder / "experts.json").read_text())
    assert described["shape"] == [3, 5, sum(prod(shape) for _, shape in described["parameters"])]
    assert described["data"] == first.fingerprint
    monkeypatch.setattr(module, "fit", None)
    monkeypatch.setattr(module, "fit_many", None)
    again, charged = measured(experts, cache=tmp_path)
    assert torch.equal(first.weights, again.weights)
    assert spent(ledger) == spent(charged)
    assert torch.equal(first.weights, measured_without_cache(experts))


def measured_without_cache(experts: Experts) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        from modicum.training.many import fit_many

        patch.setattr(module, "fit", fit)
        patch.setattr(module, "fit_many", fit_many)
        return measured(experts)[0].weights


@pytest.mark.parametrize("experts", VARIANTS, ids=lambda e: e.variant)
@pytest.mark.parametrize("moment", [1, 7, 11])
def test_interrupted_and_resumed_equals_uninterrupted(experts: Experts, moment: int, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Interrupted(Context):
        def loop(self, *work, **options):
            for number, step in enumerate(super().loop(*work, **options)):
                if number == moment:
                    raise Stop
                yield step

    options = {"cache": tmp_path, "checkpoint_seconds": 0.0}
    whole, ledger = measured(experts)
    with pytest.raises(Stop):
        experts.measure(splits(), Recipe(), Interrupted(**options))
    (folder,) = (tmp_path / "experts").iterdir()
    assert (folder / "experts.part").exists()
    resumed, charged = measured(experts, **options)
    assert torch.equal(whole.weights, resumed.weights)
    assert spent(ledger) == spent(charged)


@pytest.mark.parametrize("experts", VARIANTS, ids=lambda e: e.variant)
def test_where_the_part_is_lost_the_work_begins_anew(experts: Experts, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Interrupted(Context):
        def loop(self, *work, **options):
            for number, step in enumerate(super().loop(*work, **options)):
                if number == 9:
                    raise Stop
                yield step

    options = {"cache": tmp_path, "checkpoint_seconds": 0.0}
    with pytest.raises(Stop):
        experts.measure(splits(), Recipe(), Interrupted(**options))
    next(tmp_path.glob("experts/*/experts.part")).unlink()
    assert torch.equal(measured(experts)[0].weights, measured(experts, **options)[0].weights)


def test_a_part_of_another_shape_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "experts.part"
    manifest = {"shape": [2, 3, 4]}
    module._Rows(path, manifest, lasting=True).numbers[:] = 1
    assert module._Rows(path, manifest, lasting=True).numbers.all()
    assert not module._Rows(path, {"shape": [2, 3, 4], "seed": 1}, lasting=True).numbers.any()


def test_a_store_holds_them_where_there_is_no_cache(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, ledger = measured(store=store)
    names = store.names()
    assert len(names) == 2
    assert all(name.startswith("experts-") for name in names)
    again, charged = measured(store=store)
    assert torch.equal(first.weights, again.weights)
    assert spent(ledger) == spent(charged)
    other, _ = measured(seed=1, store=store)  # another description is another file
    assert not torch.equal(first.weights, other.weights)


def test_other_data_and_other_networks_are_refused() -> None:
    data = splits()
    table, _ = measured(data=data)
    table.check(data.train, "mlp(hidden=6)")
    table.check(data.train[torch.randperm(30, generator=generator(2))], "mlp(hidden=6)")
    with pytest.raises(ModicumError, match="other data than train"):
        table.check(data.train.replace(inputs=data.train.inputs + 1), "mlp(hidden=6)")
    with pytest.raises(ModicumError, match=r"networks 'mlp\(hidden=6\)', but the students are 'linear'"):
        table.check(data.train, "linear")


def test_what_is_not_there_is_named() -> None:
    table, _ = measured()
    with pytest.raises(ModicumError, match=r"expert=3; expected one of 0\.\.2"):
        table.at(3, 0)
    with pytest.raises(ModicumError, match=r"epoch=5; expected one of 0\.\.4"):
        table.at(0, 5)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"count": 0}, "count=0; expected an integer >= 1"),
        ({"epochs": 0}, "epochs=0"),
        ({"variant": "sam"}, "variant='sam'; expected one of 'sgd', 'gsam', 'smooth'"),
        ({"stop_after": 51}, "stop_after=51; expected an integer from 0 to epochs=50"),
        ({"rho": -0.1}, "rho=-0.1"),
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"decay": 0.0}, r"decay=0.0; expected a number in \(0, 1\]"),
    ],
)
def test_options_are_checked(options: dict[str, object], text: str) -> None:
    with pytest.raises(ModicumError, match=text):
        Experts(**options)  # type: ignore[arg-type]


def test_data_that_cannot_be_distilled_are_refused_before_any_training() -> None:
    data = splits()
    missing = data._replace(train=data.train[data.train.labels != 1])
    with pytest.raises(DataError, match="train has no sample of class 'b'"):
        measured(data=missing)
    inputs = data.train.inputs.clone()
    inputs[3, 0] = torch.inf
    with pytest.raises(DataError, match="not finite"):
        measured(data=data._replace(train=data.train.replace(inputs=inputs)))


def test_convolutional_experts_of_images_are_augmented() -> None:
    x = torch.rand(12, 1, 8, 8, generator=generator(0, "images"))
    data = Dataset(x, torch.arange(12) % 2, info=Info(modality="image", classes=("cat", "dog")))
    small = Experts(count=1, epochs=1, batch_size=6, model="convnet(width=4)")
    plain = replace(small, augment="none").measure(Splits(data, data, data), Recipe(), Context())
    table = small.measure(Splits(data, data, data), Recipe(), Context())
    assert table.recipe.augment == ("dsa(strategy='color_crop_cutout_flip_scale_rotate')",)
    assert torch.equal(table.weights[:, 0], plain.weights[:, 0])
    assert not torch.equal(table.weights[:, 1], plain.weights[:, 1])


def test_trainings() -> None:
    assert Experts(count=10, epochs=20).trainings() == 10
    assert Experts(count=10, epochs=50, stop_after=20, variant="gsam").trainings() == 20
