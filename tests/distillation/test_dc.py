import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import DC, DCC, DSA, class_gradients, gradient_distance, loops_for
from modicum.errors import ModicumError
from modicum.flops import count_flops
from modicum.methods import make, spec
from modicum.models import build
from modicum.scores import Budget
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="convnet(width=4)")
ONE, TWO = Budget(per_class=1), Budget(per_class=2)
FAST = DC(iterations=2, batch_real=8, outer=2, inner=2)


def pictures(counts: tuple[int, ...] = (20, 20, 20)) -> Splits:
    n = sum(counts)
    x = torch.randint(0, 256, (n, 1, 8, 8), generator=generator(0, "x")).to(torch.uint8)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    info = Info(modality="image", classes=tuple("abc"[: len(counts)]), mean=(127.0,), std=(70.0,))
    train = Dataset(x, y, info=info)
    return Splits(train, train[:6], train[:6])


def standardized(method: Any, data: Splits, budget: Budget, recipe: Recipe = RECIPE, seed: int = 0) -> Tensor:
    made = method.distill(data, budget, recipe, Context(seed=seed)).dataset
    return made.prepare(made.inputs)


def test_the_table_of_loops() -> None:
    assert [loops_for(n) for n in (1, 10, 20, 30, 40, 50)] == [(1, 1), (10, 50), (20, 25), (30, 20), (40, 15), (50, 10)]
    assert [loops_for(n) for n in (2, 5, 15, 100, 200)] == [(2, 250), (5, 100), (15, 33), (100, 2), (100, 2)]


def test_one_step_equals_the_loop_over_classes_though_a_class_is_small() -> None:
    """Every real sample takes part, so that which ones were drawn does not matter."""
    data = pictures((20, 3, 12))
    method = DC(iterations=1, batch_real=100, outer=1, init="real")
    budget = Budget(keep=5)
    start = standardized(replace(method, lr_img=1e-30), data, budget)
    made = method.distill(data, budget, RECIPE, Context()).dataset
    g = generator(0, "gradient matching", 0)
    network = build(RECIPE.model, data.train, int(torch.randint(2**31, (1,), generator=g)))
    parameters, leaf = list(network.parameters()), start.clone().requires_grad_()
    x, total = data.train.prepare(data.train.inputs), torch.zeros(())
    for c in range(3):
        real, own = data.train.labels == c, made.labels == c
        loss = F.cross_entropy(network(x[real]), data.train.labels[real])
        a = torch.autograd.grad(loss, parameters)
        loss = F.cross_entropy(network(leaf[own]), made.labels[own])
        b = torch.autograd.grad(loss, parameters, create_graph=True)
        total = total + gradient_distance(b, a)
    (slope,) = torch.autograd.grad(total, leaf)
    assert made.class_counts().tolist() == [2, 1, 2]
    torch.testing.assert_close(made.prepare(made.inputs), start - 0.1 * slope, rtol=1e-4, atol=1e-5)


def test_many_real_samples_come_in_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures()
    whole = standardized(FAST, data, ONE)
    monkeypatch.setattr("modicum.distillation.dc.PASS", 64 * 3 * 3)
    torch.testing.assert_close(standardized(FAST, data, ONE), whole, rtol=1e-3, atol=1e-4)


def test_networks_are_trained_between_updates() -> None:
    data = pictures()
    assert not torch.equal(standardized(FAST, data, TWO), standardized(replace(FAST, inner=0), data, TWO))


def test_without_augmentation_dsa_is_dc() -> None:
    data = pictures()
    for init in ("noise", "real"):
        own = DSA(iterations=2, batch_real=8, outer=2, inner=2, augment="none", init=init)  # type: ignore[arg-type]
        assert torch.equal(standardized(own, data, TWO), standardized(replace(FAST, init=init), data, TWO))
    assert not torch.equal(standardized(replace(own, augment="auto"), data, TWO), standardized(own, data, TWO))


def test_with_endless_warm_up_dcc_is_dc() -> None:
    data = pictures()
    own = DCC(iterations=2, batch_real=2, inner=1, warmup_networks=99, warmup_updates=99)
    other = DC(iterations=2, batch_real=2, outer=10, inner=1, init="real")
    assert torch.equal(standardized(own, data, ONE), standardized(other, data, ONE))
    assert not torch.equal(standardized(replace(own, warmup_updates=3), data, ONE), standardized(own, data, ONE))
    assert not torch.equal(standardized(replace(own, warmup_networks=1), data, ONE), standardized(own, data, ONE))


def test_the_gradient_of_dcc_is_that_of_all_classes_together() -> None:
    data = pictures()
    start = standardized(DCC(iterations=1, lr_img=1e-30, warmup_networks=0, outer=1), data, TWO)
    made = standardized(DCC(iterations=1, warmup_networks=0, outer=1, batch_real=20), data, TWO)
    g = generator(0, "gradient matching", 0)
    network = build(RECIPE.model, data.train, int(torch.randint(2**31, (1,), generator=g)))
    parameters, leaf = list(network.parameters()), start.clone().requires_grad_()
    real = torch.autograd.grad(
        F.cross_entropy(network(data.train.prepare(data.train.inputs)), data.train.labels), parameters
    )
    own = torch.autograd.grad(
        F.cross_entropy(network(leaf), torch.arange(3).repeat_interleave(2)), parameters, create_graph=True
    )
    (slope,) = torch.autograd.grad(gradient_distance(own, real), leaf)
    torch.testing.assert_close(made, start - 0.1 * slope, rtol=1e-4, atol=1e-5)


def test_with_one_group_contrast_is_a_class() -> None:
    data = pictures()
    network = build(RECIPE.model, data.train, 0).double()
    x, y = data.train.prepare(data.train.inputs).double().reshape(3, 20, 1, 8, 8), data.train.labels.reshape(3, 20)
    each = class_gradients(network, x, y, torch.full((3, 20), 1 / 20, dtype=torch.float64))
    every = class_gradients(
        network, x.reshape(1, 60, 1, 8, 8), y.reshape(1, 60), torch.full((1, 60), 1 / 60, dtype=torch.float64)
    )
    for a, b in zip(each, every, strict=True):
        torch.testing.assert_close(a.mean(0), b[0], rtol=1e-10, atol=1e-12)


def test_the_ledger_is_exact() -> None:
    data, ctx = pictures(), Context()
    FAST.distill(data, TWO, RECIPE, ctx)
    total, network = ctx.ledger.total("choose"), build(RECIPE.model, data.train, 0)
    with count_flops() as one:
        network(torch.zeros(1, 1, 8, 8))
    # two networks, two updates each on 24 real and 6 synthetic samples, two epochs of 6 between them
    assert total.forward_flops == one.flops * 2 * (2 * (24 + 6) + 2 * 6)
    assert total.backward_flops > 2 * total.forward_flops * 0.7
    assert total.samples == 2 * (2 * (24 + 6) + 2 * 6)
    assert total.uncounted == ()


class Normalized(nn.Module):
    """With batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


def test_batch_normalization_works_with_one_sample_a_class() -> None:
    made = standardized(replace(FAST, augment="color_crop"), pictures(), ONE, Recipe(model=Normalized))
    assert bool(made.isfinite().all())


def test_it_warns_when_inputs_grow_out_of_all_proportion() -> None:
    data = pictures()
    with pytest.warns(UserWarning, match=r"dc has pushed inputs to .* standard deviations after iteration \d+"):
        replace(FAST, lr_img=1e3, model="mlp(hidden=8)").distill(data, ONE, RECIPE, Context())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = FAST.distill(data, ONE, RECIPE, Context())
    assert max(made.history["largest"]) < 10


def test_options_come_back_from_text() -> None:
    for text in ("dc(iterations=3, outer=2)", "dsa(augment='crop')", "dcc(warmup_networks=5)"):
        assert spec(make(text)) == text


@pytest.mark.parametrize("kind", [DC, DSA, DCC])
@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr_img": 0}, "option lr_img=0; expected a number > 0 or 'auto'"),
        ({"outer": 0}, "option outer=0; expected an integer >= 1 or 'auto'"),
        ({"inner": "many"}, "option inner='many'; expected an integer >= 0 or 'auto'"),
        ({"iterations": 0}, "option iterations=0; expected an integer > 0"),
        ({"momentum": 1.0}, "option momentum=1.0; expected"),
        ({"distance": "l2"}, "option distance='l2'; expected 'layers', 'cos', 'mse', 'l1'"),
        ({"init": "zero"}, "option init='zero'; expected 'real', 'noise'"),
        ({"augment": "crops"}, "family 'crops' is unknown"),
    ],
)
def test_errors_of_options(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        kind(**options)
