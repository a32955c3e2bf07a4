import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info
from modicum.errors import ModicumError
from modicum.measurement.smoothing import SmoothLoss, clip_ramp, decayed_rates, gradient_penalty
from modicum.training.fit import fit
from modicum.training.recipe import Recipe


def pictures(n: int = 12) -> Dataset:
    x = torch.randn(n, 2, 4, 4, generator=generator(0, "x"))
    return Dataset(x, torch.arange(n) % 3, info=Info(modality="image", classes=tuple("abc")))


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    g = generator(0, "net")
    made = nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=dtype) / 3)
    return made


def test_the_ramp_is_the_published_one() -> None:
    assert [clip_ramp(e) for e in range(12)] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.0]


def test_one_decay_after_the_middle() -> None:
    rates = decayed_rates(0.003, 50, 4)
    assert len(rates) == 200
    assert rates[: 27 * 4] == (0.003,) * 108
    assert set(rates[108:]) == {0.003 * 0.6}
    assert decayed_rates(0.1, 1, 3) == (0.1,) * 3
    Recipe(model="mlp", steps=len(rates), rates=rates)


def test_the_penalty_equals_its_definition_sample_by_sample() -> None:
    model, x = network(), torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=generator(1))
    for norm in ("channel", "sample"):
        expected = []
        for one in x:
            jacobian = torch.autograd.functional.jacobian(lambda z: model(z[None])[0].sum(), one)
            length = jacobian.pow(2).sum(0).sqrt() if norm == "channel" else jacobian.pow(2).sum().sqrt()
            expected.append((length - 1).pow(2).mean())
        torch.testing.assert_close(gradient_penalty(model, x, norm), torch.stack(expected), rtol=0, atol=1e-12)


def test_the_penalty_differentiates_in_the_parameters() -> None:
    model, x = network(), torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=generator(1))
    weight, step = model[1].weight, 1e-6  # type: ignore[index]
    (slope,) = torch.autograd.grad(gradient_penalty(model, x).mean(), weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[2, 3] += sign * step
        values.append(gradient_penalty(model, x).mean().item())
        with torch.no_grad():
            weight[2, 3] -= sign * step
    assert float(slope[2, 3]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


def test_rows_of_a_table_have_one_norm_either_way() -> None:
    model, x = nn.Linear(4, 3), torch.rand(5, 4)
    assert torch.equal(gradient_penalty(model, x, "channel"), gradient_penalty(model, x, "sample"))


def test_the_objective_adds_up() -> None:
    data, model = pictures(), network(torch.float32)
    loss = SmoothLoss(data, batch_size=4, penalty=2.0)
    indices, seen = torch.tensor([3, 1, 7]), torch.randn(3, 2, 4, 4)  # augmented: others than the stored
    losses, outputs = loss(model, seen, data.labels[indices], indices)
    entropy = F.cross_entropy(model(seen), data.labels[indices], reduction="none")
    torch.testing.assert_close(losses, 0.5 * entropy + 2 * gradient_penalty(model, data.inputs[indices]))
    torch.testing.assert_close(outputs, model(seen))


def test_without_ramp_and_penalty_it_is_plain_training() -> None:
    data = pictures()
    recipe = Recipe(model="mlp(hidden=8, layers=1)", epochs=2, batch_size=4, lr=0.05)
    plain = fit(data, recipe, Context()).model
    smooth = fit(data, recipe, Context(), objective=SmoothLoss(data, 4, ramp=False, penalty=0)).model
    for a, b in zip(plain.parameters(), smooth.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_ramp_follows_the_epochs_of_the_training() -> None:
    data, seen = pictures(10), []

    class Watched(SmoothLoss):
        def after(self, model: nn.Module) -> None:
            seen.append(clip_ramp(self.steps // self.steps_per_epoch))
            super().after(model)

    fit(data, Recipe(model="linear", epochs=3, batch_size=4), Context(), objective=Watched(data, 4, penalty=0))
    assert seen == [0.5] * 3 + [0.55] * 3 + [0.6] * 3


def test_the_ramp_and_the_penalty_make_the_first_updates_smaller() -> None:
    data = pictures(30)
    recipe = Recipe(model="mlp(hidden=16, layers=1)", epochs=1, batch_size=10, lr=0.02, momentum=0.9)

    def moved(**options: float) -> float:
        rows = []

        class Recorder:
            def record(self, *_: object) -> None: ...
            def state_dict(self) -> dict[str, object]:
                return {}

            def load_state_dict(self, state: object, /) -> None: ...
            def end_epoch(self, epoch: int, model: nn.Module) -> None:
                rows.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))

        from modicum.models import build

        fit(data, recipe, Context(), objective=SmoothLoss(data, 10, **options), recorder=Recorder())  # type: ignore[arg-type]
        start = torch.cat([p.detach().flatten() for p in build(recipe.model, data, 0).parameters()])
        return float((rows[0] - start).norm())

    assert moved(ramp=True, penalty=0) < 0.7 * moved(ramp=False, penalty=0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: clip_ramp(-1), "epoch=-1; expected an integer >= 0"),
        (lambda: clip_ramp(1, first=0), r"first=0; expected a number in \(0, 1\]"),
        (lambda: decayed_rates(0.0, 2, 2), "lr=0.0; expected a number > 0"),
        (lambda: gradient_penalty(nn.Linear(2, 2), torch.rand(1, 2), "pixel"), "norm='pixel'; expected 'channel'"),  # type: ignore[arg-type]
        (lambda: SmoothLoss(pictures(), 0), "batch_size=0; expected an integer >= 1"),
        (lambda: SmoothLoss(pictures(), 4, penalty=-1), "penalty=-1; expected a number >= 0"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        make()
