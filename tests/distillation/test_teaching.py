from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import Ensemble, Teacher, TrainedTeacher, check_teacher, rebuild_teacher, student_recipe
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.ledger import Ledger
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

TINY = TrainedTeacher("linear", epochs=30)


def pictures(classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Splits:
    x = torch.randint(0, 256, (60, 1, 8, 8), generator=generator(0, "x")).to(torch.uint8)
    info = Info(modality="image", classes=classes, mean=(127.0,), std=(70.0,))
    train = Dataset(x, torch.arange(60) % 3, info=info)
    return Splits(train, train[:6], train[:6])


class Knows(nn.Module):
    """Says the classes that are written into the first pixel, moved by so many."""

    def __init__(self, moved: int = 0) -> None:
        super().__init__()
        self.moved = moved

    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(3)[(x[:, 0, 0, 0].long() + self.moved) % 3]


def test_a_teacher_whose_classes_come_in_another_order_is_refused() -> None:
    y = torch.arange(60) % 3
    x = y[:, None, None, None].float().expand(60, 1, 4, 4)
    assert check_teacher(Knows(), x, y) == 1.0
    with pytest.raises(TrainingError, match=r"knows 0.0 % of 60 samples, and chance is 33.3 %.*order of the data's"):
        check_teacher(Knows(1), x, y)


def test_the_teacher_does_not_depend_on_the_order_of_the_data_and_is_charged() -> None:
    data = pictures()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    ledger = Ledger()
    one = TINY.measure(data, Recipe(), Context(ledger=ledger))
    two = TINY.measure(data._replace(train=data.train[order]), Recipe(), Context())
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad
    assert not one.model.training
    assert ledger.total("choose").flops == ledger.total().flops > 0


def test_from_the_cache_it_is_the_same_and_costs_the_same(tmp_path: Path) -> None:
    data, ledgers = pictures(), [Ledger(), Ledger()]
    models = [TINY.measure(data, Recipe(), Context(cache=tmp_path, ledger=each)).model for each in ledgers]
    for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert ledgers[0].total().flops == ledgers[1].total().flops > 0


def test_tables_have_no_such_teacher() -> None:
    info = Info(classes=("a", "b"))
    table = Dataset(torch.rand(6, 4), torch.arange(6) % 2, info=info)
    with pytest.raises(DataError, match="is for images, but this data set is tabular"):
        TINY.measure(Splits(table, table, table), Recipe(), Context())


def test_the_student_learns_on_mixed_views() -> None:
    data = pictures()
    teacher = Teacher(TINY.measure(data, Recipe(), Context()).model, "linear")
    recipe = replace(student_recipe("linear", data.train, 30), epochs=2)
    assert recipe.augment[-1] == "cutmix"
    assert "flip" in recipe.augment  # cats and dogs
    done = fit(data.train[:30], recipe, Context(), objective=teacher.objective())
    assert done.history["loss"][-1] > 0


def test_sizes_of_the_batches() -> None:
    train = pictures().train
    assert [student_recipe("linear", train, 3 * k).batch_size for k in (1, 10, 50)] == [3, 30, 100]


def test_an_ensemble_is_rebuilt_from_its_description() -> None:
    train = pictures().train
    both = rebuild_teacher("linear + mlp(hidden=8)", train)
    assert isinstance(both, Ensemble)
    again = rebuild_teacher("linear + mlp(hidden=8)", train)
    again.load_state_dict(both.state_dict())
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(again(x), both(x))
    torch.testing.assert_close(both(x), (both.models[0](x) + both.models[1](x)) / 2)


def test_epochs() -> None:
    with pytest.raises(ModicumError, match="teacher epochs=0; expected an integer >= 1"):
        TrainedTeacher(epochs=0)
