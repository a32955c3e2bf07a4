"""RELA around any base: bit-identical without targets, the switch in the middle of a run, and every base there is."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.errors import DataError, ModicumError
from modicum.methods import family_of, make, spec, table
from modicum.pretraining import Plan, pretrain
from modicum.pretraining.learner import backbone_for
from modicum.relabeling import Prior, Rela, rela_loss, relabel
from modicum.training.recipe import Recipe

RECIPE = Recipe("convnet(width=8)", epochs=2, batch_size=16, optimizer="adamw", lr=1e-3)
SIMCLR = "simclr(hidden=16, dimension=8)"
BASES = {
    "barlow-twins": "hidden=16, dimension=8",
    "byol": "hidden=16, dimension=8",
    "dino": "hidden=16, dimension=8",
    "isogclr": "hidden=16, dimension=8",
    "moco-v2": "hidden=16, dimension=8, queue=32",
    "npid": "dimension=8",
    "simclr": "hidden=16, dimension=8",
    "simsiam": "hidden=16, dimension=8",
    "sogclr": "hidden=16, dimension=8",
    "sqrtkl": "hidden=16, dimension=8",
    "vicreg": "hidden=16, dimension=8",
}
THERE = [key for key in BASES if key in table() and family_of(table()[key]) == "pretraining"]


def based(key):
    """The base with those of the options that it has."""
    names = set(table()[key].__dataclass_fields__)
    return f"{key}({', '.join(o for o in BASES[key].split(', ') if o.split('=')[0] in names)})"


def state(done):
    return {name.removeprefix("base."): value for name, value in done.learner.state_dict().items()}


class TestLoss:
    def test_zero_for_parallel_and_two_for_opposite(self):
        y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(rela_loss(2 * y, 3 * y, y), torch.zeros(5), atol=1e-6, rtol=0)
        torch.testing.assert_close(rela_loss(-y, -y, y), torch.full((5,), 2.0))

    def test_the_views_count_alike(self):
        a, b, y = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(rela_loss(a, b, y), rela_loss(b, a, y))
        torch.testing.assert_close(rela_loss(a, b, y), (rela_loss(a, a, y) + rela_loss(b, b, y)) / 2)

    def test_shapes(self):
        with pytest.raises(DataError, match=r"shapes \[\(5, 3\), \(5, 3\), \(5, 2\)\]; expected the same \(b, m\)"):
            rela_loss(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, 2))


@pytest.mark.parametrize("key", THERE)
class TestEveryBase:
    @pytest.mark.parametrize("switch", ["switch='never'", "switch='constant', until=0.0"])
    def test_without_targets_it_is_the_base_to_the_bit(self, key, switch, images):
        base = pretrain(images(), based(key), RECIPE)
        done = pretrain(images(), f"rela(base={based(key)!r}, {switch})", RECIPE)
        expected, found = {k.removeprefix("backbone."): v for k, v in state(base).items()}, state(done)
        found = {name.removeprefix("backbone."): value for name, value in found.items()}
        assert expected
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
        assert base.history["loss"] == done.history["loss"]
        assert base.history["forward_flops"] == done.history["forward_flops"]
        assert base.history["backward_flops"] == done.history["backward_flops"]

    def test_goes_on_after_the_targets(self, key, images):
        done = pretrain(images(), f"rela(base={based(key)!r}, switch='constant', until=0.5)", RECIPE)
        assert done.learner.rule.switched
        assert all(bool(p.isfinite().all()) for p in done.encoder.parameters())
        assert done.history["loss"][0] <= 2  # an epoch of targets, then one of the base

    def test_targets_change_what_is_learned(self, key, images):
        kept = pretrain(images(), f"rela(base={based(key)!r}, switch='always')", RECIPE)
        never = pretrain(images(), f"rela(base={based(key)!r}, switch='never')", RECIPE)
        assert any(not torch.equal(a, b) for a, b in zip(kept.encoder.parameters(), never.encoder.parameters()))


def rela(**options):
    return Rela(**({"base": SIMCLR, "prior": "pixels", "light": "none"} | options))


def learner(images, steps=10, **options):
    """A learner outside of a training loop."""
    data = images()
    method = rela(**options)
    measured = [need.measure(data, RECIPE, Context()) for need in method.needs()]
    return method.learner(data.train, backbone_for(RECIPE, data.train, 0), Plan(steps, 16, 2), *measured), data.train


class TestTargets:
    def test_are_those_of_the_positions(self, images):
        model, data = learner(images)
        at = torch.tensor([40, 3, 17])
        x = data.prepare(data.inputs[at])
        losses, outputs = model(x, at, at)
        expected = model.predict(model.backbone(x))
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(losses, rela_loss(expected, expected, model.targets[at]))

    def test_learning_brings_the_predictions_near(self, images):
        data = images()
        recipe = replace(RECIPE, epochs=12, lr=5e-3, schedule="constant")
        done = pretrain(data, rela(switch="always", dim=4), recipe)
        assert done.history["loss"][-1] < 0.7 * done.history["loss"][0]

    def test_of_a_dataset_from_relabel(self, images):
        data = images()
        a = pretrain(data, rela(switch="always", prior=relabel(data, "pixels", 8), dim=8), RECIPE)
        b = pretrain(data, rela(switch="always", dim=8), RECIPE)
        assert all(torch.equal(x, y) for x, y in zip(a.encoder.parameters(), b.encoder.parameters()))

    def test_of_other_samples_are_refused(self, images):
        data = images()
        with pytest.raises(DataError, match="there are targets of 48 samples, but the data have 47"):
            pretrain(data._replace(train=data.train[:47]), rela(prior=relabel(data, "pixels", 8)), RECIPE)

    def test_of_the_wrong_shape_are_refused(self, images):
        data = images().train
        with pytest.raises(DataError, match=r"targets are \(47, 4\); expected finite numbers of shape \(48, m\)"):
            rela().learner(data, backbone_for(RECIPE, data, 0), Plan(4, 16, 2), torch.zeros(47, 4))

    def test_a_network_as_prior(self, images):
        prior = nn.Sequential(nn.Flatten(), nn.Linear(192, 6))
        done = pretrain(images(), rela(switch="always", prior=prior), RECIPE)
        assert done.learner.targets.shape == (48, 6)
        assert (
            pretrain(images(), rela(switch="always", prior=Prior(prior)), RECIPE).history["loss"]
            == done.history["loss"]
        )


class TestSwitch:
    def test_the_rule_learns_the_mean_loss_after_each_step(self, images):
        model, data = learner(images)
        at = torch.arange(16)
        losses, _ = model(data.prepare(data.inputs[:16]), at, at)
        assert model.rule.g == 0
        model.after()
        assert model.rule.fast == pytest.approx(0.999 + 0.001 * float(losses.detach().mean()), abs=1e-9)

    def test_an_adaptive_one_is_too_late_for_a_short_run(self, images):
        assert not pretrain(images(), rela(), RECIPE).learner.rule.switched
        assert pretrain(images(), rela(switch="scaled"), replace(RECIPE, epochs=6)).learner.rule.switched

    def test_modes_have_their_own_cost(self, images):
        done = pretrain(images(), rela(switch="constant", until=0.5), RECIPE)
        always = pretrain(images(), rela(switch="always"), RECIPE)
        never = pretrain(images(), rela(switch="never"), RECIPE)
        flops = done.history["forward_flops"]
        assert flops[0] == always.history["forward_flops"][0]
        assert flops[1] - flops[0] == never.history["forward_flops"][0]

    def test_blended_weights_begin_with_the_targets(self, images):
        model, data = learner(images, switch="blend")
        plain, _ = learner(images, switch="always")
        at, x = torch.arange(16), data.prepare(data.inputs[:16])
        assert torch.equal(model(x, at, at)[0], plain(x, at, at)[0])
        model.after()
        g = model.rule.g
        assert 0 < g < 1
        own = plain(x, at, at)[0]
        generator = torch.random.get_rng_state()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.set_state(generator)
            blended = model(x, at, at)[0]
            torch.default_generator.set_state(generator)
            base = model.base(x, at, at)[0]
        torch.testing.assert_close(blended, (1 - g) * own + g * base)

    def test_the_teacher_follows_from_the_first_step(self, images):
        model, data = learner(images, base="byol(hidden=16, dimension=8)")
        before = [p.clone() for p in model.base.teacher.parameters()]
        with torch.no_grad():
            for p in model.backbone.parameters():
                p.add_(1)
        at = torch.arange(16)
        model(data.prepare(data.inputs[:16]), at, at)
        model.after()
        assert any(not torch.equal(a, b) for a, b in zip(before, model.base.teacher.parameters()))

    def test_heads_of_the_base_wait(self, images):
        model, data = learner(images)
        at = torch.arange(16)
        model(data.prepare(data.inputs[:16]), at, at)[0].mean().backward()
        assert all(p.grad is None for p in model.base.head.parameters())
        assert all(p.grad is not None for p in model.backbone.parameters())

    @pytest.mark.parametrize("trained", [True, False])
    def test_the_head_learns_or_stays(self, trained, images):
        first, _ = learner(images, train_head=trained)
        done = pretrain(images(), rela(switch="always", train_head=trained), RECIPE).learner
        assert torch.equal(first.predict.weight, done.predict.weight) == (not trained)

    def test_light_views_first_then_those_of_the_base(self, images):
        seen = []

        class Spy(nn.Module):
            def forward(self, x):
                seen.append(x.clone())
                return x.flatten(1)[:, :32]

        model, data = learner(images, switch="constant", until=0.1, augment=("flip",))
        model.backbone.network = nn.Sequential(Spy(), nn.Linear(32, 1))
        at, x = torch.arange(16), data.prepare(data.inputs[:16])
        model(x, at, at)
        assert all(torch.equal(view, x) for view in seen)
        model.after()
        seen.clear()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model(x, at, at)
        assert not torch.equal(torch.cat(seen), torch.cat([x, x]))


class TestSupervised:
    def test_reads_labels_and_says_so(self, images):
        recipe = replace(RECIPE, epochs=20, lr=3e-3)
        done = pretrain(images(), rela(base="supervised(augment='none')", switch="constant", until=0.3), recipe)
        assert done.ledger.total().labels == 48
        assert done.history["loss"][-1] < 0.8  # of log 3 = 1.1 at the start

    def test_never_relabeled_it_is_plain_supervised_training(self, images):
        from modicum.training.fit import fit

        data = images()
        done = pretrain(data, rela(base="supervised(augment='none')", switch="never"), RECIPE)
        assert done.history["loss"][0] == pytest.approx(float(fit(data.train, RECIPE).history["loss"][0]), rel=0.5)

    def test_numbers_as_targets(self, images):
        data = images()
        info = replace(data.train.info, task="regression", classes=())
        train = data.train.replace(targets=torch.rand(48), info=info)
        done = pretrain(data._replace(train=train), rela(base="supervised(augment='none')", switch="never"), RECIPE)
        assert done.ledger.total().labels == 48

    def test_without_labels(self, images):
        data = images()
        info = replace(data.train.info, task="unlabeled", classes=())
        bare = data.train.replace(targets=None, info=info)
        with pytest.raises(
            ModicumError, match=r"dataset has no targets; fit needs labels|base 'supervised' reads labels"
        ):
            pretrain(data._replace(train=bare), rela(base="supervised"), RECIPE)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"switch": "sometimes"}, "rela: switch='sometimes'; expected one of adaptive, scaled, blend, constant, never"),
        ({"until": 1.5}, r"rela: until=1.5; expected a share in \[0, 1\]"),
        ({"dim": -1}, "rela: dim=-1; expected an integer >= 0"),
        ({"side": 2.5}, "rela: side=2.5; expected px >= 0"),
        ({"statistics": "mine"}, "rela: statistics='mine'; expected auto, data or imagenet"),
        ({"beta_slow": 1.0}, "beta_slow=1.0; expected a decay"),
        ({"prior": 3}, "prior is a int; expected a text"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ModicumError, match=text):
        Rela(**options)


@pytest.mark.parametrize(
    "base, text",
    [
        ("rela", "rela: base='rela'; expected 'supervised' or the key of a pretraining method"),
        ("el2n", "rela: base='el2n'; expected"),
        ("simclrr", "method 'simclrr' is unknown; did you mean simclr"),
        ("supervised(width=3)", "base 'supervised' has no option 'width'; its options are augment"),
    ],
)
def test_bases_that_are_none(base, text):
    with pytest.raises(ModicumError, match=text):
        Rela(base=base).needs()


def test_text_and_method_are_the_same_thing():
    made = Rela(base=SIMCLR, prior="trained:digits", switch="blend", light=("flip",))
    assert make(spec(made)) == made
