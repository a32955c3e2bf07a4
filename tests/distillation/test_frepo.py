from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import FRePo, Pool, regression_recipe, ridge_predict
from modicum.distillation.frepo import _Run, fitted_head, flips, undecided
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.scores import Budget
from modicum.training.outputs import centered_targets
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=8, layers=1)")
FAST = FRePo(iterations=3, pool=2, lifetime=4, batch_real=8)


def table(n: int = 60, d: int = 5) -> Splits:
    x = torch.randn(n, d, generator=generator(0, "table")) * torch.arange(1, d + 1) + 3
    info = Info(classes=("a", "b"), mean=(3.0,) * d, std=tuple(float(k) for k in range(1, d + 1)))
    train = Dataset(x, torch.arange(n) % 2, info=info)
    return Splits(train, train[:6], train[:6])


def rows(m: int, d: int = 6, n: int = 20, c: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    g = generator(0, "rows", m)
    return tuple(torch.randn(k, generator=g, dtype=torch.float64) for k in ((m, d), (m, c), (n, d)))  # type: ignore[return-value]


def by_kernel(s: Tensor, y: Tensor, t: Tensor, reg: float) -> Tensor:
    kernel = s @ s.T
    ridge = reg * kernel.trace() / len(s)
    return t @ s.T @ torch.linalg.solve(kernel + ridge * torch.eye(len(s)).to(s), y)


@pytest.mark.parametrize("m", [4, 6, 15])
@pytest.mark.parametrize("reg", [1e-3, 0.3])
def test_the_prediction_is_kernel_ridge_regression_with_a_linear_kernel(m: int, reg: float) -> None:
    """Woodbury: with fewer samples than features, as many, or more."""
    s, y, t = rows(m)
    torch.testing.assert_close(ridge_predict(s, y, t, reg), by_kernel(s, y, t, reg), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("m", [4, 15])
def test_so_are_its_gradients(m: int) -> None:
    s, y, t = rows(m)
    s.requires_grad_(), y.requires_grad_()
    wanted = torch.randn(20, 3, generator=generator(1), dtype=torch.float64)
    slopes = [
        torch.autograd.grad((predict(s, y, t, 0.01) - wanted).square().sum(), (s, y))
        for predict in (ridge_predict, by_kernel)
    ]
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_a_small_ridge_interpolates() -> None:
    s, y, _ = rows(4)
    torch.testing.assert_close(ridge_predict(s, y, s, 1e-12), y, rtol=0, atol=1e-8)


def test_single_precision_features_are_solved_in_double_precision() -> None:
    s, y, t = rows(6)
    single = ridge_predict(s.float(), y.float(), t.float(), 1e-6)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), by_kernel(s, y, t, 1e-6), rtol=1e-3, atol=1e-3)


def test_the_order_of_the_synthetic_samples_does_not_matter() -> None:
    s, y, t = rows(5)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(ridge_predict(s[order], y[order], t), ridge_predict(s, y, t))


def test_undecided_labels_cost() -> None:
    assert float(undecided(torch.zeros(3, 4))) == 0
    assert float(undecided(10 * torch.eye(4))) == -0.25
    assert float(undecided(torch.ones(2, 1))) == 0  # one class only


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: ridge_predict(torch.ones(2, 3), torch.ones(3, 1), torch.ones(1, 3)),
            r"features are \(2, 3\) and labels",
        ),
        (lambda: ridge_predict(torch.ones(2, 3), torch.ones(2, 1), torch.ones(1, 4)), r"features_t \(1, 4\)"),
        (lambda: fitted_head(torch.ones(2, 3), torch.ones(2, 1), 0.0), "reg=0.0; expected a number > 0"),
        (lambda: FRePo(reg=0.0), "option reg=0.0; expected a number > 0"),
        (lambda: FRePo(pool=0), "option pool=0; expected an integer > 0"),
        (lambda: FRePo(flip="maybe"), "flip='maybe'; expected 'auto', 'yes', 'no'"),
    ],
)
def test_errors(call: Any, text: str) -> None:
    with pytest.raises(ModicumError, match=text):
        call()


def test_a_dead_network_is_named() -> None:
    with pytest.raises(TrainingError, match=r"all zero or not finite.*network is dead"):
        fitted_head(torch.zeros(2, 3), torch.ones(2, 1))


def test_flipping_is_for_images() -> None:
    with pytest.raises(DataError, match="flip='yes' is for images, but this data set is tabular"):
        flips("yes", table().train, 4)


@pytest.mark.parametrize(
    ("channels", "classes", "samples", "expected"),
    [(3, ("cat", "dog"), 500, True), (3, ("cat", "dog"), 501, False), (1, ("cat", "dog"), 10, False), (3, ("0", "1"), 10, False)],
)  # fmt: skip
def test_flips_where_published(channels: int, classes: tuple[str, ...], samples: int, expected: bool) -> None:
    info = Info(modality="image", classes=classes)
    assert flips("auto", Dataset(torch.rand(2, channels, 4, 4), torch.tensor([0, 1]), info=info), samples) is expected


@pytest.mark.parametrize(("samples", "steps"), [(1, 1000), (10, 1000), (100, 2000), (1000, 10_000), (9000, 40_000)])
def test_the_recipe_has_the_published_steps(samples: int, steps: int) -> None:
    recipe = regression_recipe("mlp", samples)
    assert recipe.steps == steps
    assert (recipe.optimizer, recipe.loss, recipe.ema, recipe.weight_decay) == ("adamw", "mse", 0.995, 0.0)


class Scaled(nn.Module):
    """Features are the inputs times a number; the output is not what is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.head = nn.Parameter(torch.tensor(2.0)), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.factor * x)  # type: ignore[no-any-return]


def test_one_step_equals_the_equations() -> None:
    data = table()
    method = FRePo(iterations=1, pool=1, batch_real=1000, lr_img=0.01, lr_label=0.02, reg=0.1)
    ctx = Context(seed=3)
    made = method.distill(data, Budget(per_class=2), replace(RECIPE, model=Scaled), ctx).dataset
    run = _Run(method, data.train, Budget(per_class=2), replace(RECIPE, model=Scaled), ctx)
    x, y = run.inputs.detach().clone().requires_grad_(), run.targets.detach().clone().requires_grad_()
    real = run.real(torch.arange(60))
    misfit = by_kernel(2 * x.double(), y.double(), 2 * real.double(), 0.1) - centered_targets(run.real_labels, 2)
    loss = 0.5 * misfit.square().sum(1).mean() - (y.max(1).values - y.min(1).values).clamp(max=0.5).mean()
    slope_x, slope_y = torch.autograd.grad(loss, (x, y))
    # the first step of Adam is the sign of the gradient
    torch.testing.assert_close(made.prepare(made.inputs), x - 0.01 * slope_x.sign(), rtol=0, atol=1e-4)
    torch.testing.assert_close(made.targets, y - 0.02 * slope_y.sign(), rtol=0, atol=1e-4)


def test_labels_start_centered_and_scaled_and_stay_where_asked() -> None:
    data = table()
    made = replace(FAST, learn_labels=False).distill(data, Budget(per_class=1), RECIPE, Context()).dataset
    scaled = torch.tensor([[0.5, -0.5], [-0.5, 0.5]]) / (2 / 10) ** 0.5
    torch.testing.assert_close(made.targets, scaled)
    learned = FAST.distill(data, Budget(per_class=1), RECIPE, Context()).dataset
    assert not torch.equal(learned.targets, made.targets)


def test_the_gradient_takes_the_network_as_it_is() -> None:
    """However a network came about, the same weights give the same step."""
    data = table()
    steps = []
    for trained in (False, True):
        run = _Run(replace(FAST, pool=1), data.train, Budget(per_class=1), RECIPE, Context())
        network = run.pool.networks[0]
        if trained:
            run.pool.train(0, run.inputs + 1, run.targets, run.random(), 3)
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p))
        run.step(0)
        steps.append(run.inputs.detach())
    assert torch.equal(*steps)


def test_networks_are_of_spread_ages_and_start_anew_when_old() -> None:
    run = _Run(replace(FAST, pool=4, lifetime=8), table().train, Budget(per_class=1), RECIPE, Context())
    pool = run.pool
    assert pool.ages == [0, 2, 4, 6]
    first = next(pool.networks[3].parameters()).detach().clone()
    pool.train(3, run.inputs, run.targets, run.random(), 1)
    assert pool.ages == [0, 2, 4, 7]
    old = pool.networks[3]
    pool.train(3, run.inputs, run.targets, run.random(), 1)
    assert (pool.ages, pool.drawn) == ([0, 2, 4, 0], [0, 0, 0, 1])
    assert pool.networks[3] is not old
    assert not torch.equal(next(pool.networks[3].parameters()), first)
    other = Pool(run, 4, 8, 3e-4)
    other.load_state_dict(pool.state_dict())
    assert other.ages == pool.ages
    for a, b in zip(other.networks, pool.networks, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_training_in_the_pool_lowers_the_squared_error() -> None:
    run = _Run(replace(FAST, pool=1, lifetime=500, lr_net=0.01), table().train, Budget(per_class=4), RECIPE, Context())
    network = run.pool.networks[0]
    before = (network(run.inputs) - run.targets).square().mean()
    run.pool.train(0, run.inputs, run.targets, run.random(), 100)
    assert (network(run.inputs) - run.targets).square().mean() < 0.3 * before


def test_mirror_images_join_the_regression() -> None:
    x = torch.rand((30, 3, 4, 4), generator=generator(0))
    info = Info(modality="image", classes=("cat", "dog"))
    data = Splits(*(Dataset(x, torch.arange(30) % 2, info=info),) * 3)
    recipe = Recipe(model="convnet(width=4)")
    run = _Run(FAST, data.train, Budget(per_class=1), recipe, Context())
    assert run.flips
    assert torch.equal(run.mirrored(run.inputs)[2:], run.inputs.flip(-1))
    made, plain = (replace(FAST, flip=f).distill(data, Budget(per_class=1), recipe, Context()) for f in ("yes", "no"))
    assert len(made) == len(plain) == 2
    assert not torch.equal(made.dataset.inputs, plain.dataset.inputs)


def test_it_learns_what_random_samples_do_not_tell() -> None:
    """Two classes apart along one axis among nine that only disturb: one sample each, made against real."""
    g = generator(7)
    y = torch.arange(400) % 2
    x = torch.randn((400, 10), generator=g)
    x[:, 0] += 2.0 * y - 1.0
    train = Dataset(x, y, info=Info(classes=("a", "b")))
    method = FRePo(iterations=150, lr_img=0.05, lr_label=0.01, pool=2, batch_real=400)
    made = method.distill(Splits(train, train, train), Budget(per_class=1), Recipe(model="mlp(hidden=32)"), Context())
    losses = made.history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    direction = (made.dataset.inputs[1] - made.dataset.inputs[0]).abs()
    assert int(direction.argmax()) == 0
