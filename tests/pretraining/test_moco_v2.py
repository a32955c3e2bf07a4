import copy
import math

import pytest
import torch
import torch.nn.functional as F

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.losses import InfoNCE
from modicum.methods import make
from modicum.pretraining import MoCoV2, pretrain
from modicum.pretraining.learner import Plan, backbone_for
from modicum.training.recipe import Recipe

N, D = 24, 4
RECIPE = Recipe("convnet(width=4, depth=1)", epochs=1, batch_size=6, optimizer="adamw", lr=1e-3)


def data():
    draw = torch.Generator().manual_seed(0)
    return Dataset(torch.rand(N, 1, 8, 8, generator=draw), info=Info("unlabeled", modality="image"))


def learner_of(steps=10, recipe=RECIPE, **options):
    method = MoCoV2(hidden=8, dimension=D, augment="none", **options)
    torch.manual_seed(0)  # as the training loop does around it
    return method.learner(data(), backbone_for(recipe, data(), 0), Plan(steps, 6, 1.0))


def batch(start=0, size=6):
    x = data().inputs[start : start + size]
    return x, torch.arange(size), torch.arange(size)


def query(learner, x):
    return learner.head(learner.backbone(x))


def moved(learner, by=0.1):
    """As an optimizer would."""
    with torch.no_grad():
        for p in learner.parameters():
            if p.requires_grad:
                p.add_(by * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return learner


def test_the_loss_is_that_of_queries_keys_and_the_queue_before_the_step():
    learner = moved(learner_of(queue=10))
    x, targets, indices = batch()
    losses, queries = learner(x, targets, indices)
    assert losses.shape == (6,)
    torch.testing.assert_close(queries, query(learner, x))
    keys = learner.teacher(x)
    assert not torch.allclose(keys, queries)
    torch.testing.assert_close(losses, InfoNCE(0.2, "none")(queries, keys, learner.queue))


@pytest.mark.parametrize("size", [1, 4, 6, 8, 12])
def test_the_queue_holds_the_last_keys_in_order(size):
    learner = learner_of(queue=size, momentum=0.9)
    made = []
    for step in range(5):
        x, targets, indices = batch(3 * step)
        made.append(F.normalize(learner.teacher(x), dim=1))
        learner(x, targets, indices)
        moved(learner, 0.05).after()
    last = torch.cat(made)[-size:]
    torch.testing.assert_close(learner.queue.roll(-int(learner.at), 0), last)
    torch.testing.assert_close(learner.queue.norm(dim=1), torch.ones(size))


def test_no_more_keys_than_half_of_the_samples():
    assert learner_of().queue.shape == (N // 2, D)
    assert learner_of(queue=5).queue.shape == (5, D)
    assert not torch.equal(learner_of().queue[0], learner_of().queue[1])


def test_without_a_queue_it_compares_within_the_batch():
    learner = moved(learner_of(queue=0))
    x, targets, indices = batch()
    losses, queries = learner(x, targets, indices)
    torch.testing.assert_close(losses, InfoNCE(0.2, "none")(queries, learner.teacher(x)))
    learner.after()
    assert learner.queue.shape == (0, D)


def test_with_momentum_0_the_copy_is_the_network_and_with_1_it_never_moves():
    first = learner_of()
    for momentum, same in ((0.0, True), (1.0, False)):
        learner = moved(learner_of(momentum=momentum))
        learner.after()
        x = batch()[0]
        assert torch.equal(learner.teacher(x), query(learner if same else first, x))


def test_the_copy_is_an_average_over_the_steps():
    learner = learner_of(momentum=0.9)
    weight = learner.head[0].weight
    mean = weight.detach().clone()
    for _ in range(3):
        moved(learner).after()
        mean = 0.9 * mean + 0.1 * weight.detach()
    torch.testing.assert_close(learner.teacher.network[1][0].weight, mean)


def test_the_momentum_goes_to_its_end_by_half_a_cosine():
    learner = learner_of(steps=4, momentum=0.5, final_momentum=0.9)
    weight, mean = learner.head[0].weight, learner.head[0].weight.detach().clone()
    for step in range(4):
        m = 0.9 - 0.4 * (math.cos(math.pi * step / 4) + 1) / 2
        moved(learner).after()
        mean = m * mean + (1 - m) * weight.detach()
    torch.testing.assert_close(learner.teacher.network[1][0].weight, mean)


def test_no_gradient_reaches_the_copy_or_the_queue():
    learner = learner_of()
    learner(*batch())[0].mean().backward()
    assert all(p.grad is None for p in learner.teacher.parameters())
    assert not any(p.requires_grad for p in learner.teacher.parameters())
    assert all(p.grad is not None for p in (*learner.backbone.parameters(), *learner.head.parameters()))
    assert not learner.queue.requires_grad


def test_both_views_as_queries():
    learner = moved(learner_of(queue=12, symmetric=True))
    x, targets, indices = batch()
    losses, _ = learner(x, targets, indices)
    once = moved(learner_of(queue=12))
    torch.testing.assert_close(losses, once(x, targets, indices)[0])  # without augmentation both views are the same
    learner.after()
    torch.testing.assert_close(learner.queue[:6], learner.queue[6:])


def test_keys_of_a_network_with_batch_norm_are_made_in_random_parts():
    recipe = Recipe("resnet9(width=2)", batch_size=6)
    learner = learner_of(recipe=recipe, splits=2)
    assert learner.splits == 2
    assert learner_of(splits=2).splits == 1
    x, targets, indices = batch(size=8)
    learner(x, targets, indices)
    (keys,) = learner.made
    whole = F.normalize(copy.deepcopy(learner).teacher(x), dim=1)
    assert not torch.allclose(keys, whole, atol=1e-3)
    learner.teacher.eval()  # with statistics that are given, parts make no difference: every key is at its image
    learner(x, targets, indices)
    torch.testing.assert_close(learner.made[0], F.normalize(learner.teacher(x), dim=1))


def test_a_batch_too_small_for_the_parts():
    learner = learner_of(recipe=Recipe("resnet9(width=2)", batch_size=6))
    assert bool(learner(*batch(size=3))[0].isfinite().all())


def test_after_without_a_forward_pass_only_the_copy_moves():
    learner = moved(learner_of())
    before, weight = learner.queue.clone(), learner.teacher.network[1][0].weight.clone()
    learner.after()
    assert torch.equal(learner.queue, before)
    assert int(learner.at) == 0
    assert not torch.equal(learner.teacher.network[1][0].weight, weight)


def test_a_step_costs_two_forward_passes_and_one_backward_pass():
    splits = Splits(data(), data()[:4], data()[:4])
    ledgers = {}
    for options in ("", ", symmetric=True"):
        method = f"moco-v2(hidden=8, dimension=4, queue=0, augment='none'{options})"
        ledgers[options] = pretrain(splits, method, RECIPE, Context()).ledger.total()
    once, twice = ledgers.values()
    assert twice.backward_flops == 2 * once.backward_flops
    assert twice.forward_flops == 2 * once.forward_flops


@pytest.mark.parametrize(
    "options, text",
    [
        ("momentum=1.5", r"method 'moco-v2' option momentum=1.5; expected a number in \[0, 1\]"),
        ("final_momentum=-0.5", r"final_momentum=-0.5; expected a number in \[0, 1\]"),
        ("queue=-1", "queue=-1; expected an integer >= 0"),
        ("temperature=0", "temperature=0; expected a number > 0"),
        ("splits=0", "splits=0; expected an integer"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ModicumError, match=text):
        make(f"moco-v2({options})")
