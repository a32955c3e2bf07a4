from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import generator
from modicum.distillation import class_gradients, gradient_distance, matching
from modicum.distillation.matching import set_statistics
from modicum.errors import DataError, ModicumError
from modicum.models.convnet import ConvNet
from modicum.models.simple import MLP

DOUBLE = torch.float64


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "convnet": lambda: ConvNet((1, 8, 8), 3, width=4),
            "mlp": lambda: MLP((1, 8, 8), 3, hidden=7),
            "strided": lambda: nn.Sequential(
                nn.Conv2d(1, 4, 3, stride=2, dilation=1, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
            ),
            "grouped": lambda: nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 3)
            ),
            "written over": lambda: nn.Sequential(
                nn.Flatten(), nn.Linear(64, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)
            ),
        }[kind]()
    return made.to(DOUBLE)


def samples(groups: int = 3, size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    g = random(1)
    x = torch.randn(groups, size, 1, 8, 8, dtype=DOUBLE, generator=g)
    return x, torch.arange(groups)[:, None].expand(groups, size), torch.rand(groups, size, dtype=DOUBLE, generator=g)


def loop(network: nn.Module, x: Tensor, y: Tensor, w: Tensor, least: int, graph: bool = False) -> list[Tensor]:
    parameters = [p for p in network.parameters() if p.ndim >= least]
    made = [
        torch.autograd.grad(
            (F.cross_entropy(network(a), b, reduction="none") * c).sum(), parameters, create_graph=graph
        )
        for a, b, c in zip(x, y, w, strict=True)
    ]
    return [torch.stack(rows) for rows in zip(*made, strict=True)]


@pytest.mark.parametrize("least", [1, 2, 4])
@pytest.mark.parametrize("kind", ["convnet", "mlp", "strided", "grouped", "written over"])
def test_gradients_of_classes_equal_a_loop(kind: str, least: int) -> None:
    network, (x, y, w) = small(kind), samples()
    if least == 4 and not any(p.ndim == 4 for p in network.parameters()):
        with pytest.raises(ModicumError, match="no parameter with 4 axes"):
            class_gradients(network, x, y, w, least=least)
        return
    made = class_gradients(network, x, y, w, least=least)
    for one, two in zip(made, loop(network, x, y, w, least), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    assert not any(g.requires_grad for g in made)
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


@pytest.mark.parametrize("kind", ["convnet", "mlp", "strided", "grouped"])
@pytest.mark.parametrize("metric", ["layers", "cos", "mse", "l1"])
def test_the_gradient_of_the_distance_equals_a_loop(kind: str, metric: Any) -> None:
    network, (x, y, w) = small(kind), samples(size=2)
    real = class_gradients(network, *samples(), least=2)

    def slope(gradients: Callable[[Tensor], list[Tensor]]) -> Tensor:
        leaf = x.clone().requires_grad_()
        made = gradients(leaf)
        total = sum(gradient_distance([m[c] for m in made], [r[c] for r in real], metric) for c in range(3))
        (found,) = torch.autograd.grad(total, leaf)  # type: ignore[arg-type]
        return found

    ours = slope(lambda leaf: class_gradients(network, leaf, y, w, least=2, create_graph=True))
    torch.testing.assert_close(
        ours, slope(lambda leaf: loop(network, leaf, y, w, 2, graph=True)), rtol=1e-8, atol=1e-11
    )


def test_it_is_differentiable_as_differences_say() -> None:
    network, (x, y, w) = small("mlp"), samples(2, 2)
    real = class_gradients(network, *samples(2, 4), least=2)

    def distance(leaf: Tensor) -> Tensor:
        made = class_gradients(network, leaf, y, w, least=2, create_graph=True)
        return torch.func.vmap(gradient_distance)(made, real).sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(leaf), leaf)
    for at in ((0, 0, 0, 2, 3), (1, 1, 0, 7, 7), (0, 1, 0, 4, 4)):
        step = torch.zeros_like(x)
        step[at] = 1e-6
        difference = (distance(x + step) - distance(x - step)) / 2e-6
        assert float(difference.detach()) == pytest.approx(float(slope[at]), rel=1e-5, abs=1e-8)


def some(seed: int) -> list[Tensor]:
    g = random(seed)
    return [torch.randn(shape, dtype=DOUBLE, generator=g) for shape in ((4, 2, 3, 3), (4,), (3, 16), (3,))]


def test_the_distance_of_equal_gradients_is_nothing() -> None:
    a = some(0)
    least = min(float(t.flatten(1).square().sum(1).min()) for t in a if t.ndim > 1)
    assert 0 <= float(gradient_distance(a, a)) < 7 * 1e-6 / least
    leaf = [t.clone().requires_grad_() for t in a]
    slopes = torch.autograd.grad(gradient_distance(leaf, a), [t for t in leaf if t.ndim > 1])
    assert max(float(s.abs().max()) for s in slopes) < 1e-5


def test_the_length_of_a_row_does_not_matter_but_its_direction_does() -> None:
    a, b = some(0), some(1)
    scaled = [t.clone() for t in a]
    scaled[0][2] *= 7.5
    torch.testing.assert_close(gradient_distance(scaled, b), gradient_distance(a, b), rtol=0, atol=1e-6)
    turned = [t.clone() for t in a]
    turned[0][2] *= -1
    assert float(gradient_distance(turned, a)) == pytest.approx(2, abs=1e-5)


def test_biases_do_not_matter() -> None:
    a, b = some(0), some(1)
    other = [t + 3 if t.ndim == 1 else t for t in a]
    assert torch.equal(gradient_distance(other, b), gradient_distance(a, b))
    assert float(gradient_distance([a[1]], [b[1]])) == 0


def test_the_distance_is_a_sum_over_rows() -> None:
    a, b = some(0), some(1)
    rows = sum(
        1 - F.cosine_similarity(p.flatten(), q.flatten(), dim=0)
        for i in (0, 2)
        for p, q in zip(a[i], b[i], strict=True)
    )
    torch.testing.assert_close(gradient_distance(a, b), rows, rtol=0, atol=1e-5)
    p, q = (torch.cat([t.flatten() for t in side]) for side in (a, b))
    torch.testing.assert_close(gradient_distance(a, b, "mse"), (p - q).square().sum())
    torch.testing.assert_close(gradient_distance(a, b, "l1"), (p - q).abs().sum())
    torch.testing.assert_close(gradient_distance(a, b, "cos"), 1 - F.cosine_similarity(p, q, dim=0), rtol=0, atol=1e-6)


def test_a_row_of_zeros_has_no_gradient() -> None:
    a, b = some(0), some(1)
    a[0][1] = 0
    leaf = a[0].clone().requires_grad_()
    distance = gradient_distance([leaf, *a[1:]], b)
    (slope,) = torch.autograd.grad(distance, leaf)
    assert bool(distance.isfinite())
    assert bool(slope.isfinite().all())


def test_statistics_of_batch_normalization_are_those_of_the_samples() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x = torch.randn(9, 4, generator=random())
    set_statistics(network, x)
    norm = network[1]
    assert isinstance(norm, nn.BatchNorm1d)
    torch.testing.assert_close(norm.running_mean, x.mean(0))
    torch.testing.assert_close(norm.running_var, x.var(0))
    assert norm.momentum == 0.1
    assert not norm.training
    gradients = class_gradients(network, x[None], torch.zeros(1, 9, dtype=torch.int64), torch.full((1, 9), 1 / 9))
    assert [tuple(g.shape) for g in gradients] == [(1, 4), (1, 4), (1, 2, 4), (1, 2)]


def test_errors() -> None:
    a = some(0)
    with pytest.raises(DataError, match=r"a has shapes .* and b .*; expected the same, one a layer"):
        gradient_distance(a, a[:2])
    with pytest.raises(ModicumError, match="metric='l2'; expected 'layers', 'cos', 'mse' or 'l1'"):
        gradient_distance(a, a, "l2")  # type: ignore[arg-type]
    x, y, w = samples()
    with pytest.raises(DataError, match=r"labels is \(3, 4\) and weights \(3, 5\); expected \(3, 5\)"):
        class_gradients(small("mlp"), x, y[:, :4], w)


@pytest.mark.parametrize("create_graph", [False, True])
def test_large_groups_one_by_one_are_the_same(monkeypatch: pytest.MonkeyPatch, create_graph: bool) -> None:
    network = ConvNet((1, 8, 8), 3, width=4).double()
    x = torch.randn(3, 5, 1, 8, 8, dtype=torch.float64, generator=generator(0, "x")).requires_grad_(create_graph)
    y, w = torch.arange(3)[:, None].expand(3, 5), torch.full((3, 5), 0.2, dtype=torch.float64)
    together = class_gradients(network, x, y, w, least=2, create_graph=create_graph)
    monkeypatch.setattr(matching, "LARGE", 1)
    alone = class_gradients(network, x, y, w, least=2, create_graph=create_graph)
    torch.testing.assert_close(alone, together, rtol=1e-10, atol=1e-12)
    if create_graph:
        slopes = [torch.autograd.grad(sum(t.square().sum() for t in g), x)[0] for g in (alone, together)]
        torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-12)
