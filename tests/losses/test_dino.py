import math

import pytest
import torch
from torch import nn

from modicum.errors import TrainingError
from modicum.losses import DINO


def views(count, n=5, k=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, k, generator=g, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("students, teachers", [(2, 2), (2, 1), (4, 2), (3, 3)])
def test_equals_the_definition(students, teachers):
    student, teacher = views(students), views(teachers, seed=1)
    loss = DINO(7, 0.2, 0.05)
    loss.center.copy_(torch.linspace(-1, 1, 7))
    pairs = [
        -(((t - loss.center) / 0.05).softmax(1) * (s / 0.2).softmax(1).log()).sum(1)
        for i, t in enumerate(teacher)
        for j, s in enumerate(student)
        if i != j
    ]
    torch.testing.assert_close(loss(student, teacher), torch.stack(pairs).mean())
    loss.reduction = "none"
    torch.testing.assert_close(loss(student, teacher), torch.stack(pairs).mean(0))


def test_the_center_absorbs_a_constant():
    student, teacher, shift = views(2), views(2, seed=1), 3 * views(1, 1)[0]
    moved = [t + shift for t in teacher]
    loss, other = DINO(7, momentum=0.9), DINO(7, momentum=0.9)
    for _ in range(400):
        loss.update_center(teacher)
        other.update_center(moved)
    torch.testing.assert_close(other(student, moved), loss(student, teacher), rtol=1e-4, atol=0)
    assert abs(float(DINO(7)(student, moved)) - float(loss(student, teacher))) > 0.1  # without it the loss differs


def test_the_center_follows_the_mean_of_all_views():
    loss, teacher = DINO(7, momentum=0.75), views(2)
    loss.update_center(teacher)
    torch.testing.assert_close(loss.center.double(), 0.25 * torch.cat(teacher).mean(0), rtol=1e-6, atol=1e-7)
    kept = DINO(7, momentum=1.0)
    kept.update_center(teacher)
    assert not kept.center.any()


def test_no_gradient_reaches_the_teacher():
    student = [x.requires_grad_() for x in views(2)]
    teacher = [x.requires_grad_() for x in views(2, seed=1)]
    DINO(7)(student, teacher).backward()
    assert all(t.grad is None for t in teacher)
    assert all(s.grad is not None for s in student)


def distilled(teacher_temperature, momentum):
    """How full the prototypes are, and how sharp the teacher, after learning from two noisy views of 64 points."""
    k, g = 16, torch.Generator().manual_seed(0)
    data = torch.randn(64, 8, generator=g)
    student = nn.Linear(8, k, bias=True)
    with torch.no_grad():
        student.weight.copy_(0.3 * torch.randn(k, 8, generator=g))
        student.bias.zero_()[0] = 3.0  # a prototype that begins with an advantage
    teacher = nn.Linear(8, k).requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    loss, optimizer = DINO(k, 0.1, teacher_temperature, momentum), torch.optim.Adam(student.parameters(), 0.02)
    for _ in range(300):
        seen = [data + 0.1 * torch.randn(64, 8, generator=g) for _ in range(2)]
        told = [teacher(x) for x in seen]
        value = loss([student(x) for x in seen], told)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        loss.update_center(told)
        for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs.detach(), 0.1)
    p = ((teacher(data) - loss.center) / teacher_temperature).softmax(1)
    used = p.mean(0)
    return float(value.detach()), float(-(used * used.clamp_min(1e-30).log()).sum())


def test_centering_and_sharpening_each_prevent_a_collapse():
    _, used = distilled(0.04, 0.9)
    assert used > 0.6 * math.log(16)  # many prototypes
    _, alone = distilled(0.04, 1.0)
    assert alone < used - 0.5  # without centering few take everything
    value, _ = distilled(1.0, 0.9)
    assert value == pytest.approx(math.log(16), rel=0.05)  # without sharpening everything is uniform


@pytest.mark.parametrize(
    "options, text",
    [
        ({"prototypes": 1}, "prototypes=1; expected an integer >= 2"),
        ({"temperature": 0}, "^temperature=0; expected a number > 0"),
        ({"teacher_temperature": -1}, "teacher_temperature=-1; expected a number > 0"),
        ({"momentum": 1.1}, r"momentum=1.1; expected a share in \[0, 1\]"),
        ({"reduction": "sum"}, "reduction='sum'; expected 'mean' or 'none'"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(TrainingError, match=text):
        DINO(**{"prototypes": 7, **options})


@pytest.mark.parametrize(
    "student, teacher, text",
    [
        (views(1), views(1), "there are 1 views of the student and 1 of the teacher; expected two or more"),
        (views(2), views(3), "there are 2 views of the student and 3 of the teacher"),
        (views(2), [], "there are 2 views of the student and 0 of the teacher"),
        (views(2), views(2, n=4), "embeddings have shapes"),
        (views(2, k=6), views(2, k=6), "logits have 6 columns; expected 7 prototypes"),
    ],
)
def test_wrong_views(student, teacher, text):
    with pytest.raises(TrainingError, match=text):
        DINO(7)(student, teacher)
