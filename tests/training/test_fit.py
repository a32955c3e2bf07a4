import numpy as np
import pytest
import torch
import torch.nn.functional as F

import modicum
from modicum.context import Context
from modicum.data.augment import make_augment
from modicum.dataset import Dataset, Info
from modicum.errors import TrainingError
from modicum.ledger import peak_bytes
from modicum.models import build
from modicum.training import fit as fit_module
from modicum.training.fit import default_recipe, fit
from modicum.training.order import Shuffle, permutation
from modicum.training.recipe import Recipe
from modicum.training.schedule import learning_rate


def table(n=50, d=6, classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x, w = torch.randn(n, d, generator=draw), torch.randn(d, classes, generator=draw)
    return Dataset(x, (x @ w).argmax(1), info=Info(classes=tuple("abcdefghij"[:classes])))


def images(n=20, channels=2, side=8, classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (n, channels, side, side), generator=draw, dtype=torch.uint8)
    info = Info(modality="image", classes=tuple("abc"[:classes]), mean=(128.0,) * channels, std=(64.0,) * channels)
    return Dataset(x, torch.arange(n) % classes, info=info)


def weights_of(done):
    return {name: value.clone() for name, value in done.model.state_dict().items()}


def same(a, b, **tolerance):
    torch.testing.assert_close(weights_of(a), weights_of(b), **(tolerance or {"rtol": 0, "atol": 0}))


def divided(weights, at):
    """Weights of a batch over their mean, added up one after another as the loop does."""
    total = torch.zeros(1).index_add_(0, torch.zeros(len(at), dtype=torch.int64), weights[at])
    return weights[at] * (len(at) / total)


def bare_loop(data, recipe, seed, loss_of, optimizer_of=None, after=lambda model: None, epochs=None):
    """Plain PyTorch, nothing of the loop under test but the order and the initial weights."""
    model, x = build(recipe.model, data, seed), data.prepare(data.inputs)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True, foreach=False
    )
    n, losses = len(data), []
    for epoch in range(epochs or int(recipe.epochs)):
        order, total = permutation(n, seed, epoch), 0.0
        for start in range(0, n, recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(
                    recipe, (epoch + start / recipe.batch_size / -(-n // recipe.batch_size)) / recipe.epochs
                )
            each, weights = loss_of(model(x[batch]), batch)
            optimizer.zero_grad()
            (each * weights).mean().backward()
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            after(model)
            total += float(each.detach().sum())
        losses.append(total / n)
    return model, losses


def check(data, recipe, loss_of, seed=3, **options):
    done = fit(data, recipe, Context(seed=seed))
    model, losses = bare_loop(data, recipe, seed, loss_of, **options)
    torch.testing.assert_close(dict(done.model.state_dict()), dict(model.state_dict()), rtol=0, atol=1e-6)
    assert done.history["loss"] == pytest.approx(losses, abs=1e-5)
    return done


# -- the mathematics: equal to a bare loop ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, model",
    [(table(), "linear"), (table(), "mlp(hidden=16)"), (images(), "convnet(width=4, depth=1)")],
    ids=["linear", "mlp", "convnet"],
)
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
def test_fit_is_a_bare_loop(data, model, schedule):
    recipe = Recipe(model=model, epochs=3, batch_size=8, lr=0.05, schedule=schedule)
    check(data, recipe, lambda out, at: (F.cross_entropy(out, data.targets[at], reduction="none"), 1.0))


def test_fit_is_a_bare_loop_on_digits():
    data = modicum.load("digits").train
    recipe = Recipe(model="mlp(hidden=32)", epochs=2, batch_size=64, lr=0.05)
    check(data, recipe, lambda out, at: (F.cross_entropy(out, data.targets[at], reduction="none"), 1.0))


def test_sample_weights_multiply_the_losses_and_the_divisor_is_their_sum():
    data = table()
    data = data.replace(weights=torch.rand(len(data), generator=torch.Generator().manual_seed(9)))
    recipe = Recipe(model="linear", epochs=3, batch_size=8)
    done = check(
        data,
        recipe,
        lambda out, at: (
            F.cross_entropy(out, data.targets[at], reduction="none"),
            divided(data.weights, at),
        ),
    )
    # a sample that stands for a hundred makes no longer step than one that stands for itself
    same(fit(data.replace(weights=4 * data.weights), recipe), fit(data, recipe), rtol=0, atol=1e-6)
    # weight zero is the same as a sample that pushes nothing; a weight of one the same as none
    same(fit(data.replace(weights=torch.ones(50)), recipe), fit(data.replace(weights=None), recipe))
    assert done.ledger.total().samples == 150


def test_label_smoothing_is_cross_entropy_with_the_smoothed_label():
    data = table()
    smooth = 0.8 * F.one_hot(data.targets, 3) + 0.2 / 3
    recipe = Recipe(model="mlp(hidden=16)", epochs=3, batch_size=8, label_smoothing=0.2)
    check(data, recipe, lambda out, at: (-(smooth[at] * out.log_softmax(1)).sum(1), 1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_labels_are_cross_entropy(dtype):
    data = table()
    soft = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
    data = data.replace(targets=soft.to(dtype))
    recipe = Recipe(model="linear", epochs=2, batch_size=8)
    check(data, recipe, lambda out, at: (-(soft[at] * out.log_softmax(1)).sum(1), 1.0))


def test_one_hot_targets_train_as_class_indices():
    data, recipe = table(), Recipe(model="linear", epochs=2, batch_size=8)
    hot = data.replace(targets=F.one_hot(data.targets, 3).float())
    same(fit(data, recipe), fit(hot, recipe), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_regression_is_squared_error(shape, dtype):
    x = table().inputs
    targets = x[:, 0] - 2 * x[:, 1]
    weights = torch.rand(50, generator=torch.Generator().manual_seed(2))
    data = Dataset(x, targets.reshape(shape).to(dtype), weights=weights, info=Info("regression"))
    recipe = Recipe(model="linear", epochs=10, batch_size=8, lr=0.02)
    done = check(data, recipe, lambda out, at: ((out[:, 0] - targets[at]) ** 2, divided(weights, at)))
    assert done.evaluate(data).score > 0.9


def test_average_of_the_weights_is_that_of_a_hand_loop():
    data, averages = table(), {}
    recipe = Recipe(model="mlp(hidden=8)", epochs=2, batch_size=8, ema=0.9)
    for name, value in build(recipe.model, data, 3).named_parameters():
        averages[name] = value.detach().clone()

    def average(model):
        for name, value in model.named_parameters():
            averages[name] = 0.9 * averages[name] + 0.1 * value.detach()

    bare_loop(
        data,
        recipe,
        3,
        lambda out, at: (F.cross_entropy(out, data.targets[at], reduction="none"), 1.0),
        after=average,
    )
    done = fit(data, recipe, Context(seed=3))
    torch.testing.assert_close(weights_of(done), averages, rtol=0, atol=1e-6)
    with pytest.raises(AssertionError):
        same(done, fit(data, Recipe(model="mlp(hidden=8)", epochs=2, batch_size=8), Context(seed=3)))


def test_clip_bounds_the_gradient():
    data = table()
    recipe = Recipe(model="linear", epochs=2, batch_size=8, clip=0.05)
    check(data, recipe, lambda out, at: (F.cross_entropy(out, data.targets[at], reduction="none"), 1.0))
    one = Recipe(model="linear", steps=1, batch_size=50, lr=1.0, momentum=0.0, weight_decay=0, schedule="constant")
    clipped = Recipe(**{**vars(one), "clip": 0.01})
    start = build("linear", data, 0).head
    moved = fit(data, clipped).model.head
    norm = torch.cat([(moved.weight - start.weight).flatten(), moved.bias - start.bias]).norm()
    assert float(norm.detach()) == pytest.approx(0.01, rel=1e-3)


# -- the ledger: exact ------------------------------------------------------------------------------------------------

# a product (m, k) x (k, n) is 2 m k n; backward is one for the weights and one for the inputs, which the first layer
# does not need; biases, norms, ReLU and pooling are 0
D, H, C = 6, 16, 3
CONVNET = 2 * 8 * 8 * (2 * 9) * 4 + 2 * 4 * 4 * (4 * 9) * 4, 2 * (4 * 2 * 2) * C  # two blocks of width 4, the head


@pytest.mark.parametrize(
    "data, model, forward, backward",
    [
        (table(), "linear", 2 * D * C, 2 * D * C),
        (table(), f"mlp(hidden={H})", 2 * (D * H + H * H + H * C), 2 * (D * H + 2 * H * H + 2 * H * C)),
        (table(), f"mlp(hidden={H}, layers=1)", 2 * (D * H + H * C), 2 * (D * H + 2 * H * C)),
        (
            images(),
            "convnet(width=4, depth=2)",
            sum(CONVNET),
            2 * sum(CONVNET) - 2 * 8 * 8 * (2 * 9) * 4,
        ),
    ],
    ids=["linear", "mlp", "mlp1", "convnet"],
)
@pytest.mark.parametrize("epochs, batch", [(1, 1000), (3, 7)])
def test_flops_are_those_of_the_hand_formulas(data, model, forward, backward, epochs, batch):
    n, ctx = len(data), Context()
    done = fit(data, Recipe(model=model, epochs=epochs, batch_size=batch, lr=0.01), ctx)
    (charge,) = ctx.ledger.charges
    assert done.ledger.charges == [charge]
    assert charge.samples == n * epochs
    assert charge.forward_flops == n * epochs * forward
    assert charge.backward_flops == n * epochs * backward
    assert charge.labels == n
    assert charge.uncounted == ()
    assert charge.parameters == sum(p.numel() for p in done.model.parameters())
    assert charge.bits == 32 * charge.parameters
    assert 0 < charge.peak_bytes <= peak_bytes()
    assert charge.seconds > 0
    assert charge.phase == "train"
    assert charge.what == "fit"
    assert done.history["forward_flops"] == [n * (e + 1) * forward for e in range(epochs)]
    assert done.history["backward_flops"][-1] == n * epochs * backward


def test_fits_add_up_and_are_booked_where_they_are_told_to():
    ctx, data, recipe = Context(), table(), Recipe(model="linear", epochs=1)
    fit(data, recipe, ctx)
    done = fit(data, recipe, ctx, phase="choose", name="proxy")
    assert ctx.ledger.total().samples == 2 * done.ledger.total().samples
    assert ctx.ledger.total("choose").flops == done.ledger.total("choose").flops > 0
    assert done.ledger.charges[0].what == "proxy"


def test_an_operation_without_a_formula_is_named():
    class Eigenvalues(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.head(torch.linalg.eigvalsh(x.T @ x + torch.diag(torch.arange(6.0)))[:3] * x[:, :3])

    done = fit(table(), Recipe(model=Eigenvalues, epochs=1, lr=0.01))
    assert any("eigh" in name for name in done.ledger.total().uncounted)


# -- forms of the same run --------------------------------------------------------------------------------------------


def test_same_seed_same_bits_and_another_seed_others():
    data = images()
    recipe = Recipe(
        model="convnet(width=4, depth=1)", epochs=2, batch_size=8, lr=0.05, augment=("crop(padding=1)", "flip")
    )
    torch.manual_seed(1)
    first = fit(data, recipe, Context(seed=1))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    same(first, fit(data, recipe, Context(seed=1)))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(AssertionError):
        same(first, fit(data, recipe, Context(seed=2)), rtol=0, atol=1e-3)


def dropout():
    return torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(6, 3))


def test_what_a_model_draws_is_a_function_of_the_seed():
    data, recipe = table(), Recipe(model=dropout, epochs=2, batch_size=8)
    torch.manual_seed(1)
    first, state = fit(data, recipe), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    same(first, fit(data, recipe))
    with pytest.raises(AssertionError):
        same(first, fit(data, Recipe(model=lambda: dropout()[1:], epochs=2, batch_size=8)), rtol=0, atol=1e-4)


def test_inputs_that_do_not_stay_on_the_device_give_the_same_bits(monkeypatch):
    recipe = Recipe(model="convnet(width=4, depth=1)", epochs=2, batch_size=8, lr=0.05)
    resident = fit(images(), recipe)
    monkeypatch.setattr(fit_module, "RESIDENT_BYTES", 0)
    same(resident, fit(images(), recipe))


def test_channels_last_is_the_same_computation():
    recipe = Recipe(model="convnet(width=4, depth=2)", epochs=3, batch_size=8, lr=0.02)
    last = fit(images(), Recipe(**{**vars(recipe), "channels_last": True}))
    assert last.model.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    same(fit(images(), recipe), last, rtol=0, atol=1e-4)


@pytest.mark.parametrize("data, model", [(table(), "mlp(hidden=16)"), (images(), "convnet(width=4, depth=1)")])
def test_bfloat16_keeps_float32_weights_and_comes_near(data, model):
    recipe = Recipe(model=model, epochs=5, batch_size=8, lr=0.02)
    half = fit(data, Recipe(**{**vars(recipe), "precision": "bfloat16"}))
    full = fit(data, recipe)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert half.history["loss"] == pytest.approx(full.history["loss"], rel=0.05)
    assert half.history["loss"] != full.history["loss"]
    assert half.ledger.total().flops == full.ledger.total().flops


def test_bfloat16_regression_runs():
    data = Dataset(table().inputs, table().inputs[:, 0], info=Info("regression"))
    recipe = Recipe(model="linear", epochs=5, batch_size=8, lr=0.02, precision="bfloat16")
    assert fit(data, recipe).evaluate(data).score > 0.5


@pytest.mark.parametrize(
    "augment", [("crop(padding=2)", "flip", "cutout(size=3)", "color"), ("flip", "mixup(alpha=0.4)")]
)
def test_augmented_training_is_deterministic_and_finite(augment):
    recipe = Recipe(model="convnet(width=4, depth=1)", epochs=3, batch_size=8, lr=0.02, augment=augment)
    first = fit(images(), recipe)
    same(first, fit(images(), recipe))
    assert np.isfinite(first.history["loss"]).all()
    with pytest.raises(AssertionError):
        same(first, fit(images(), Recipe(**{**vars(recipe), "augment": ()})), rtol=0, atol=1e-4)


def test_augmentation_is_drawn_anew_in_every_step_as_a_function_of_seed_and_step():
    data, seen = images(), []
    specs = ("crop(padding=2)", "flip")

    def objective(model, inputs, targets, indices):
        seen.append((indices, inputs))
        outputs = model(inputs)
        return F.cross_entropy(outputs, targets, reduction="none"), outputs

    recipe = Recipe(model="linear", epochs=3, batch_size=8, lr=0.01, augment=specs)
    fit(data, recipe, Context(seed=3), objective=objective)
    augment, draws = make_augment(specs, (2, 8, 8)), []
    for step, (indices, inputs) in enumerate(seen):
        draw = augment.draw(len(indices), Context(seed=3).generator("augment", step))
        assert torch.equal(inputs, augment.apply(data.prepare(data.inputs[indices]), draw))
        draws.append(tuple(draw.parameters[0].flatten().tolist()))
    assert len(set(draws)) == len(seen) == 9


def test_mixup_of_a_table_and_of_a_regression():
    recipe = Recipe(model="linear", epochs=3, batch_size=8, lr=0.02, augment=("mixup",))
    assert np.isfinite(fit(table(), recipe).history["loss"]).all()
    regression = Dataset(table().inputs, table().inputs[:, 0], info=Info("regression"))
    assert fit(regression, recipe).evaluate(regression).score > 0.5


def test_integer_labels_and_inputs_of_any_width():
    data, recipe = table(), Recipe(model="linear", epochs=2, batch_size=8)
    other = data.replace(inputs=data.inputs.double(), targets=data.targets.int())
    same(fit(data, recipe), fit(other, recipe))


def test_one_sample_and_a_batch_larger_than_the_data():
    data = table(n=3)
    done = fit(data, Recipe(model="linear", epochs=4, batch_size=128, lr=0.1))
    assert done.ledger.total().samples == 12
    assert fit(data[[0]], Recipe(model="linear", epochs=2, lr=0.1)).ledger.total().samples == 2


def test_the_model_comes_back_ready_for_use():
    data = images()
    done = fit(data, Recipe(model="resnet9(width=2)", epochs=1, batch_size=8, lr=0.01))
    assert not any(module.training for module in done.model.modules())
    charges = len(done.ledger.charges)
    done.evaluate(data)
    assert done.ledger.charges[charges:][0].phase == "evaluate"


# -- the length of a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, samples",
    [
        ({"epochs": 1.5}, [50, 28]),  # 8 steps and 4
        ({"epochs": 0.25}, [14]),
        ({"steps": 3}, [21]),
        ({"steps": 8}, [50]),
        ({"steps": 10}, [50, 14]),
        ({"epochs": 2}, [50, 50]),
    ],
)
def test_fractions_of_epochs_and_steps(options, samples):
    done = fit(table(), Recipe(model="linear", batch_size=7, lr=0.01, **options))
    assert done.history["samples"] == samples
    assert done.ledger.total().samples == sum(samples)


def test_the_learning_rate_ends_where_the_run_ends():
    data = table()
    for options in ({"epochs": 1.5}, {"steps": 12}):
        rates = fit(data, Recipe(model="linear", batch_size=7, lr=0.1, **options)).history["lr"]
        assert rates == pytest.approx(
            [learning_rate(Recipe(lr=0.1), t) for t in ((7 / 8) / 1.5, (1 + 3 / 8) / 1.5)], abs=1e-9
        )


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("augment", [(), ("mixup",)])
def test_stopping_after_k_epochs_is_a_prefix_of_the_whole(k, augment):
    data = table()
    recipe = Recipe(model="mlp(hidden=8)", epochs=4, batch_size=8, augment=augment, schedule="one-cycle")

    taken = {}

    class Photographer:
        def record(self, *batch):
            pass

        def end_epoch(self, epoch, model):
            taken[epoch + 1] = {name: value.clone() for name, value in model.state_dict().items()}

    whole = fit(data, recipe, recorder=Photographer())
    stopped = fit(data, recipe, stop_after=k)
    torch.testing.assert_close(weights_of(stopped), taken[k], rtol=0, atol=0)
    for key in ("loss", "samples", "lr", "forward_flops", "backward_flops"):
        assert stopped.history[key] == whole.history[key][:k]
    assert stopped.ledger.total().flops * 4 == whole.ledger.total().flops * k


class Few:
    """Half of the data in every epoch."""

    def order(self, epoch):
        return permutation(50, 0, epoch)[:25], None

    def observe(self, indices, losses):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("epochs, samples", [(2, [25, 25]), (1.5, [25, 15])])
def test_a_sampler_that_skips_ends_with_its_epochs_and_takes_no_steps_at_rate_zero(epochs, samples):
    done = fit(table(), Recipe(model="linear", epochs=epochs, batch_size=5, lr=0.01), sampler=Few())
    assert done.history["samples"] == samples
    assert min(done.history["lr"]) > 0


# -- hooks ------------------------------------------------------------------------------------------------------------


def test_the_recorder_sees_the_batch_before_its_update():
    data, seen = table(n=20), []

    class Recorder:
        def record(self, epoch, indices, outputs, losses):
            seen.append((epoch, indices, outputs, losses))

        def end_epoch(self, epoch, model):
            seen.append(epoch)

    recipe = Recipe(model="linear", epochs=2, batch_size=8)
    weighted = data.replace(weights=torch.full((20,), 0.5))
    fit(weighted, recipe, recorder=Recorder())
    assert [s if isinstance(s, int) else len(s[1]) for s in seen] == [8, 8, 4, 0, 8, 8, 4, 1]
    epoch, indices, outputs, losses = seen[0]
    assert epoch == 0
    expected = build("linear", data, 0)(data.inputs[indices])
    torch.testing.assert_close(outputs, expected.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(losses, F.cross_entropy(expected, data.targets[indices], reduction="none").detach())
    assert not outputs.requires_grad
    assert not losses.requires_grad


def test_an_objective_of_ones_own_replaces_the_loss():
    data, recipe = table(), Recipe(model="linear", epochs=2, batch_size=8)

    def doubled(model, inputs, targets, indices):
        assert torch.equal(data.targets[indices], targets)
        outputs = model(inputs)
        return 2 * F.cross_entropy(outputs, targets, reduction="none"), outputs

    class Twice(Shuffle):
        def order(self, epoch):
            return super().order(epoch)[0], torch.full((50,), 2.0)

    same(fit(data, recipe, objective=doubled), fit(data, recipe, sampler=Twice(50)), rtol=0, atol=1e-6)


def test_default_recipes_learn():
    splits = modicum.load("iris")
    done = fit(splits.train, None, Context())
    assert done.recipe == default_recipe(splits.train)
    assert done.evaluate(splits.test).score > 0.8


# -- errors -----------------------------------------------------------------------------------------------------------


def test_errors_say_what_is_wrong():
    with pytest.raises(
        TrainingError, match="dataset has no targets; fit needs labels, soft labels or regression targets"
    ):
        fit(table().replace(targets=None))
    with pytest.raises(TrainingError, match="dataset has 0 samples; fit needs at least one"):
        fit(table()[[]], Recipe(model="linear"))

    class Nothing(Few):
        def order(self, epoch):
            return torch.empty(0, dtype=torch.int64), None

    with pytest.raises(TrainingError, match="the sampler gives no positions for epoch 0; expected at least one"):
        fit(table(), Recipe(model="linear"), sampler=Nothing())


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_try():
    recipe = Recipe(model="mlp(hidden=8)", epochs=4, batch_size=8, lr=1e9)
    with pytest.raises(
        TrainingError,
        match=r"the loss is (nan|inf) after step 7 of epoch 0; try a lower lr than 1000000000.0, clip=1.0, or",
    ):
        fit(table(), recipe)
    extreme = table()
    extreme.inputs[3, 2] = float("inf")
    with pytest.raises(TrainingError, match=r"the loss is nan after step 7 of epoch 0.*look for extreme inputs"):
        fit(extreme, Recipe(model="linear", epochs=1, batch_size=8))
