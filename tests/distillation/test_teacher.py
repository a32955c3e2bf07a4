import pytest
import torch
import torch.nn.functional as F
from torch import nn

import modicum
from modicum.context import Context
from modicum.distillation import Distilled, Teacher, train_and_test
from modicum.errors import ModicumError
from modicum.training.recipe import Recipe


def pair():
    torch.manual_seed(0)
    return nn.Linear(3, 4), nn.Linear(3, 4), torch.rand(5, 3)


def test_the_loss_is_the_divergence_from_the_teacher():
    teacher, student, x = pair()
    losses, outputs = Teacher(teacher, "linear", temperature=4.0).objective()(student, x, x, x)
    p, q = F.softmax(teacher(x) / 4, 1), F.softmax(student(x) / 4, 1)
    torch.testing.assert_close(losses, (p * (p.log() - q.log())).sum(1))
    torch.testing.assert_close(outputs, student(x))


def test_it_is_zero_for_the_teacher_itself_and_reaches_the_student_alone():
    teacher, student, x = pair()
    for loss in ("kl", "mse"):
        objective = Teacher(teacher, "linear", loss=loss).objective()
        assert float(objective(teacher, x, x, x)[0].detach().abs().max()) < 1e-6
        objective(student, x, x, x)[0].sum().backward()
        assert teacher.weight.grad is None
        assert student.weight.grad is not None


def test_a_student_learns_from_it_whatever_the_targets():
    data = modicum.load("iris")
    done = modicum.fit(data.train, Recipe(model="linear", epochs=30))
    wrong = data.train.replace(targets=torch.zeros(len(data.train), dtype=torch.int64))
    made = Distilled(wrong, Recipe(model="linear", epochs=30), "all", teacher=Teacher(done.model, "linear", 1.0))
    assert train_and_test(made, data.test, Context(), networks=1).mean > 80
    assert modicum.fit(made).evaluate(data.test).score > 0.8


@pytest.mark.parametrize("options, text", [({"temperature": 0}, "temperature=0"), ({"loss": "mae"}, "loss='mae'")])
def test_bad_options(options, text):
    with pytest.raises(ModicumError, match=text):
        Teacher(nn.Linear(2, 2), "linear", **options)
