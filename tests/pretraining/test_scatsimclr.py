"""ScatSimCLR: the second tasks, SimCLR without them, the recipe that suits it."""

import math

import pytest
import torch
import torch.nn.functional as F

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.flops import count_flops
from modicum.methods import make
from modicum.pretraining import ScatSimCLR, jigsaw, jigsaw_permutations, pretrain, recipe_for
from modicum.pretraining.learner import Plan, backbone_for
from modicum.training.recipe import Recipe

SHORT = Recipe("convnet(width=8)", steps=3, batch_size=8, optimizer="adamw", lr=1e-3)


def images(side=8, width=None, n=24):
    inputs = torch.rand(n, 1, side, width or side, generator=torch.Generator().manual_seed(0))
    data = Dataset(inputs, torch.arange(n) % 2, info=Info(modality="image", classes=("a", "b")))
    return Splits(data, data, data)


def learner_of(method, data, model="convnet(width=8)"):
    return method.learner(data, backbone_for(Recipe(model), data, 0), Plan(3, 8, 1.0))


# -- the tiles ---------------------------------------------------------------------------------------------------------


def test_orders_of_the_tiles_are_as_different_as_they_can_be():
    orders = jigsaw_permutations(72)
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(72, 9))
    differing = (orders[:, None] != orders).sum(-1)
    assert int(differing[~torch.eye(72, dtype=torch.bool)].min()) == 8
    assert torch.equal(jigsaw_permutations(35), orders[:35])
    assert torch.equal(orders[0], torch.arange(9))


def test_tiles_go_where_the_order_says():
    x = torch.arange(9.0).reshape(1, 1, 3, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)  # one number a tile
    for order in jigsaw_permutations(12):
        tiles = jigsaw(x, order[None])
        assert tiles.shape == (1, 9, 1, 12, 12)
        torch.testing.assert_close(tiles[0, :, 0], order[:, None, None].float().expand(9, 12, 12))


def test_tiles_are_enlarged_and_the_rest_is_cut_off():
    x = torch.rand(2, 3, 8, 8)
    tiles = jigsaw(x, torch.arange(9).expand(2, 9))
    alone = F.interpolate(x[:, :, 3:5, 5:7], size=(8, 8), mode="bilinear")  # second row, third column
    torch.testing.assert_close(tiles[:, 5], alone)


# -- the learner -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["none", "crops"])
def test_without_a_second_task_it_is_simclr(augment):
    data = images()
    ours = f"scatsimclr(weight=0.0, norm=True, hidden=16, dimension=8, augment={augment!r})"
    a = pretrain(data, ours, SHORT, Context(seed=3))
    b = pretrain(data, f"simclr(hidden=16, dimension=8, augment={augment!r})", SHORT, Context(seed=3))
    mine, other = a.learner.state_dict(), b.learner.state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert a.ledger.total().flops == b.ledger.total().flops


@pytest.mark.parametrize("pretext, choices", [("rotation", 4), ("jigsaw", 35)])
def test_the_second_loss_begins_at_chance_and_is_weighted(pretext, choices):
    data = images(side=12, n=64).train
    learners = [
        learner_of(ScatSimCLR(pretext=pretext, weight=w, augment="none"), data, "scatnet(angles=2)") for w in (0.5, 2.0)
    ]
    learners[1].load_state_dict(learners[0].state_dict())
    losses = []
    for learner in learners:
        learner.eval()  # no dropout
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(1)
            losses.append(learner(data.inputs, torch.arange(64), torch.arange(64))[0])
    with torch.no_grad():
        z = learners[0].head(learners[0].backbone(data.inputs.repeat(2, 1, 1, 1)))
        plain = learners[0].loss(*z.chunk(2))
    second = (losses[1] - losses[0]) / 1.5
    torch.testing.assert_close(losses[0], plain + 0.5 * second, rtol=1e-3, atol=1e-3)
    assert float(second.mean()) == pytest.approx(math.log(choices), rel=0.05)


def test_all_four_turns_are_shown_with_their_number():
    data = images().train
    learner = learner_of(ScatSimCLR(augment="none"), data)
    seen = []
    learner.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    learner.pretext(learner, data.inputs)
    for k, turned in enumerate(seen[0].chunk(4)):
        assert torch.equal(turned, torch.rot90(data.inputs, k, (2, 3)))
    learner.pretext.eval()  # a head that always says "a quarter turn"
    for p in learner.pretext.head[-1].parameters():
        p.data.zero_()
    learner.pretext.head[-1].bias.data[1] = 50.0
    loss = learner.pretext(learner, data.inputs)
    torch.testing.assert_close(loss, torch.full((24,), 50.0 * 3 / 4))


def test_each_copy_is_augmented_by_itself():
    data = images().train
    learner = learner_of(ScatSimCLR(augment=("crop(padding=2)",)), data)
    seen = []
    learner.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    learner.pretext(learner, data.inputs)
    shifts = [torch.rot90(part, -k, (2, 3)) for k, part in enumerate(seen[0].chunk(4))]
    assert not torch.equal(shifts[0], shifts[1])


@pytest.mark.parametrize("pretext", ["rotation", "jigsaw"])
def test_the_second_task_is_learned(pretext):
    ramp = torch.linspace(0, 1, 12)[:, None].expand(12, 12).clone()
    ramp[:4, :4] = 2.0
    data = Dataset(ramp + 0.05 * torch.rand(32, 1, 12, 12), info=Info("unlabeled", modality="image"))
    method = ScatSimCLR(pretext=pretext, weight=1.0, permutations=3, hidden=8, dimension=4, augment="none")
    recipe = Recipe(
        "mlp(hidden=32)", steps=20 if pretext == "jigsaw" else 40, batch_size=32, optimizer="adamw", lr=3e-3
    )
    learner = pretrain(Splits(data, data, data), method, recipe).learner.eval()
    with torch.no_grad():
        loss = float(learner.pretext(learner, data.inputs).mean())
    assert loss < 0.5 * math.log(4 if pretext == "rotation" else 3)


def test_it_costs_what_its_passes_cost():
    data, total = images(12), []
    recipe = Recipe("convnet(width=8)", steps=1, batch_size=8, optimizer="adamw", lr=1e-3)
    for text in ("weight=0.0", "pretext='rotation'", "pretext='jigsaw'"):
        done = pretrain(data, f"scatsimclr({text}, hidden=8, dimension=4, permutations=2, augment='none')", recipe)
        total.append(done.ledger.total().forward_flops)
        assert done.ledger.total().labels == 0
    with count_flops() as one:
        done.encoder(data.train.inputs[:8])
    width = done.encoder.width
    rotation = 4 * one.flops + 2 * 4 * 8 * (width * 512 + 512 * 128 + 128 * 4)
    tiles = 9 * one.flops + 2 * 8 * (9 * width * 512 + 9 * 512 * 4096 + 4096 * 2)
    assert [t - total[0] for t in total[1:]] == [rotation, tiles]


# -- the recipe and the errors -----------------------------------------------------------------------------------------


def test_without_a_recipe_the_encoder_is_a_scattering_network():
    data = images().train
    assert recipe_for(make("scatsimclr"), data).model == "scatnet"
    assert recipe_for(make("scatsimclr"), images(6).train).model == "scatnet(scales=1)"
    for recipe in (recipe_for(make("scatsimclr"), data), ScatSimCLR.published):
        assert backbone_for(recipe, data, 0).width == 2048


@pytest.mark.parametrize(
    "run, message",
    [
        (
            lambda: ScatSimCLR(pretext="both"),
            "option pretext='both'; expected 'rotation' or 'jigsaw', and weight=0 for",
        ),
        (lambda: ScatSimCLR(weight=-1.0), "option weight=-1.0; expected a number >= 0"),
        (lambda: ScatSimCLR(permutations=73), "permutations=73; expected an integer from 2 to 72"),
        (lambda: jigsaw_permutations(1), "permutations=1; expected an integer from 2 to 72"),
        (
            lambda: learner_of(ScatSimCLR(augment="none"), images(8, 16).train),
            "'rotation' needs square images .* 8 x 16",
        ),
        (
            lambda: learner_of(ScatSimCLR(pretext="jigsaw", augment="none"), images(4).train),
            "'jigsaw' needs square images of at least 6 px, got 4 x 4; resize them",
        ),
        (lambda: jigsaw(torch.rand(1, 1, 9, 12), jigsaw_permutations(2)), "needs square images .* got 9 x 12"),
    ],
)
def test_errors(run, message):
    with pytest.raises(ModicumError, match=message):
        run()
