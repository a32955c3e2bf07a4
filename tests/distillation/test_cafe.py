from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import CAFE, DM, discrimination_loss, stage_distance, stage_features
from modicum.errors import DataError, ModicumError
from modicum.models.convnet import ConvNet
from modicum.models.simple import MLP
from modicum.scores import Budget
from modicum.training.recipe import Recipe

RECIPE, BUDGET = Recipe(model="convnet(width=4)"), Budget(per_class=2)
FAST = CAFE(iterations=2, batch_real=8, probe=4, outer=3, inner=2)


def pictures() -> Splits:
    x = torch.randint(0, 256, (60, 1, 8, 8), generator=generator(0, "x")).to(torch.uint8)
    info = Info(modality="image", classes=tuple("abc"), mean=(127.0,), std=(70.0,))
    train = Dataset(x, torch.arange(60) % 3, info=info)
    return Splits(train, train[:6], train[:6])


@pytest.fixture
def as_dm(monkeypatch: pytest.MonkeyPatch) -> None:
    from modicum.distillation.dc import GradientMatching
    from modicum.distillation.synthesis import Synthesis

    for kind in (GradientMatching, Synthesis):
        monkeypatch.setattr(kind, "random", lambda self, *names: generator(self.ctx.seed, "same", *names))
    return


@pytest.mark.parametrize("augment", ["none", "color_crop_flip"])
def test_with_the_last_stage_alone_in_new_networks_it_is_dm(as_dm: None, augment: str) -> None:
    data = pictures()
    cafe = CAFE(4, 0.5, weights=(0, 0, 0, 1), discrimination=0, outer=1, inner=0, init="real", augment=augment)
    dm = DM(4, 0.5, augment=augment)
    # the learning rate of cafe falls after 60 % of the iterations
    one = replace(cafe, iterations=2, batch_real=9).distill(data, BUDGET, RECIPE, Context()).snapshots[1]
    two = replace(dm, iterations=2, batch_real=9).distill(data, BUDGET, RECIPE, Context()).snapshots[1]
    assert one.iteration == two.iteration == 1
    torch.testing.assert_close(one.dataset.inputs, two.dataset.inputs, rtol=1e-6, atol=1e-4)


def test_stages_are_those_of_the_paper() -> None:
    network, x = ConvNet((1, 8, 8), 3, width=4), torch.rand(5, 1, 8, 8)
    stages = stage_features(network, x)
    assert [tuple(s.shape) for s in stages] == [(5, 4 * 64), (5, 4 * 16), (5, 4 * 4)]
    torch.testing.assert_close(F.avg_pool2d(stages[1].reshape(5, 4, 4, 4), 2).flatten(1), stages[2])
    assert len(stage_features(MLP((4,), 3, hidden=6), torch.rand(5, 4))) == 2
    assert not any(m._forward_hooks for m in network.modules())


def test_distances_and_discrimination_equal_loops() -> None:
    g = torch.Generator().manual_seed(0)
    real, made = ([torch.randn(3, d, generator=g) for d in (2, 5)] for _ in range(2))
    loop = sum(
        w * sum((a[c] - b[c]).pow(2).sum() for c in range(3)) for w, a, b in zip((0.1, 2.0), real, made, strict=True)
    )
    torch.testing.assert_close(stage_distance(real, made, (0.1, 2.0)), loop)
    x, y = torch.randn(4, 5, generator=g), torch.tensor([0, 2, 1, 1])
    expected = -sum(F.log_softmax(made[1] @ x[i], 0)[y[i]] for i in range(4))
    torch.testing.assert_close(discrimination_loss(x, y, made[1]), expected)
    with pytest.raises(DataError, match=r"real is .* with 1 weights; expected one of each a stage"):
        stage_distance(real, made, (1.0,))


def test_discrimination_pulls_the_set() -> None:
    data = pictures()
    one, two = (
        replace(FAST, discrimination=v).distill(data, BUDGET, RECIPE, Context()).dataset.inputs for v in (0.0, 1.0)
    )
    assert not torch.equal(one, two)


def test_probes_end_the_loops() -> None:
    data = pictures()

    def updates(**options: Any) -> list[float]:
        return replace(FAST, outer=15, inner=1, **options).distill(data, BUDGET, RECIPE, Context()).history["updates"]

    assert updates(outer_range=1.0) == [10, 10]
    assert updates(outer_range=0.0) == [15, 15]


def test_the_learning_rate_is_halved_thrice() -> None:
    from modicum.distillation.cafe import _Run

    data = pictures()
    run = _Run(replace(FAST, iterations=10, outer=1, inner=0), data.train, BUDGET, RECIPE, Context())
    run.learn("inputs", run.start("noise"), 0.1)
    rates = []
    for iteration in range(10):
        run.step(iteration)
        rates.append(run.optimizers["inputs"].param_groups[0]["lr"])
    assert rates == [0.1] * 6 + [0.05] * 2 + [0.025, 0.0125]


def test_of_networks_without_activations_there_is_one_stage() -> None:
    assert len(stage_features(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 4))) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weights": ()}, r"weights=\(\); expected numbers >= 0, not all 0"),
        ({"weights": (0.0, 0.0)}, "not all 0"),
        ({"outer": "auto"}, "outer='auto'; expected an integer > 0"),
        ({"outer_range": 2.0}, "outer_range=2.0; expected"),
        ({"probe": 0}, "probe=0; expected an integer > 0"),
    ],
)
def test_errors_of_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        CAFE(**options)
