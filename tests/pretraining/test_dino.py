import pytest
import torch

from modicum.dataset import Dataset, Info, Splits
from modicum.methods import make
from modicum.pretraining import pretrain
from modicum.pretraining.learner import Plan, backbone_for
from modicum.training.recipe import Recipe

RECIPE = Recipe("convnet(width=4)", epochs=2, batch_size=16, optimizer="adamw", lr=1e-3, weight_decay=0.0)
SMALL = "hidden=16, bottleneck=8, prototypes=12"


def data(n=64):
    draw = torch.Generator().manual_seed(0)
    train = Dataset(torch.rand(n, 3, 8, 8, generator=draw), None, info=Info(modality="image"))
    return Splits(train, train[:4], train[:4])


def learner(options="", steps=8, epochs=2):
    train = data().train
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the head; the training loop does so
        method = make(f"dino({SMALL}{options})")
        return method.learner(train, backbone_for(RECIPE, train, 0), Plan(steps, 16, epochs))


def step(mine, rate=0.1):
    x = data().train.inputs[:16]
    losses, _ = mine(x, torch.arange(16), torch.arange(16))
    mine.zero_grad()
    losses.mean().backward()
    with torch.no_grad():
        for p in mine.parameters():
            if p.grad is not None:
                p -= rate * p.grad
    mine.after()
    return losses.detach()


def student(mine):
    return [*mine.backbone.parameters(), *mine.head.parameters()]


def test_the_teacher_begins_as_the_student_and_follows_with_a_rising_momentum():
    mine = learner(", momentum=0.5, freeze_epochs=0.0", steps=2)
    old = [p.detach().clone() for p in student(mine)]
    assert all(torch.equal(p, t) for p, t in zip(student(mine), mine.teacher.parameters(), strict=True))
    step(mine)
    for before, now, t in zip(old, student(mine), mine.teacher.parameters(), strict=True):
        torch.testing.assert_close(t, 0.5 * before + 0.5 * now.detach())
    assert int(mine.step) == 1
    mine.step += 1
    kept = [t.clone() for t in mine.teacher.parameters()]
    step(mine)  # at the end the momentum is 1
    assert all(torch.equal(a, b) for a, b in zip(kept, mine.teacher.parameters(), strict=True))


def test_no_gradient_reaches_the_teacher():
    mine = learner(", freeze_epochs=0.0")
    step(mine)
    assert all(p.grad is None and not p.requires_grad for p in mine.teacher.parameters())
    assert all(p.grad is not None for p in mine.head.parameters())


def test_prototypes_are_frozen_for_an_epoch():
    mine = learner()  # 4 steps of 8
    first, modes, changed = mine.head.prototypes.weight.detach().clone(), [], []
    for _ in range(6):
        modes.append(mine.mode)
        step(mine)
        changed.append(not torch.equal(first, mine.head.prototypes.weight))
    assert modes == ["frozen"] * 4 + [""] * 2
    assert changed == [False] * 4 + [True] * 2


def test_a_frozen_step_costs_less():
    flops = pretrain(data(), f"dino({SMALL})", RECIPE).history["backward_flops"]
    assert flops[1] - flops[0] == flops[0] + 4 * 2 * (
        2 * 16 * 8 * 12
    )  # the gradient of the prototypes, two views a step


def test_the_temperature_of_the_teacher_rises_linearly():
    mine = learner(", warmup_epochs=1.0, teacher_temperature=0.04, final_teacher_temperature=0.08")
    seen, loss = [], mine.loss.forward
    mine.loss.forward = lambda s, t, temperature: seen.append(temperature) or loss(s, t, temperature)
    for _ in range(6):
        step(mine)
    assert seen == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.08, 0.08])


def test_outputs_are_cosines():
    mine = learner()
    out = mine.head(100 * torch.randn(32, mine.backbone.width, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (32, 12)
    assert float(out.detach().abs().max()) <= 1 + 1e-6


def test_the_center_moves_and_is_saved():
    done = pretrain(data(), f"dino({SMALL}, momentum=0.9)", RECIPE)
    assert bool(done.learner.loss.center.any())
    assert {"loss.center", "step"} <= {*done.learner.state_dict()}
    assert int(done.learner.step) == 8
