import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info
from modicum.errors import ModicumError
from modicum.measurement import GSAM, gsam_direction, gsam_perturbation
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

DATA = Dataset(
    torch.randn(32, 5, generator=generator(0, "x")), torch.arange(32) % 3, info=Info(classes=("a", "b", "c"))
)
RECIPE = Recipe("mlp(hidden=8)", epochs=4, batch_size=8, lr=0.1, momentum=0.0, nesterov=False, schedule="constant")


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(seed, "pair")
    return torch.randn(40, generator=g, dtype=torch.float64), torch.randn(40, generator=g, dtype=torch.float64)


@given(st.integers(0, 1000), st.floats(0.01, 3.0))
@settings(max_examples=20, deadline=None)
def test_what_is_taken_away_is_orthogonal_to_the_perturbed_gradient(seed: int, alpha: float) -> None:
    g1, g2 = pair(seed)
    taken = (g2 - gsam_direction(g1, g2, alpha)) / alpha
    assert float(taken @ g2) == pytest.approx(0, abs=1e-10)
    cosine = F.cosine_similarity(g1, g2, dim=0)
    torch.testing.assert_close(taken, g1 - cosine * g1.norm() * g2 / g2.norm())


def test_the_direction_with_equal_gradients_or_without_alpha_is_the_gradient() -> None:
    g1, g2 = pair(0)
    assert torch.equal(gsam_direction(g1, g1.clone(), 0.4), g1)
    assert torch.equal(gsam_direction(g1, g2, 0.0), g2)


def test_the_perturbation_is_the_adaptive_one() -> None:
    w, g = pair(1)
    (e,) = gsam_perturbation([w], [g], 0.3)
    torch.testing.assert_close(e, w**2 * g * 0.3 / (w.abs() * g).norm())
    parts = gsam_perturbation([w[:7], w[7:]], [g[:7], g[7:]], 0.3)  # one norm over all tensors
    torch.testing.assert_close(torch.cat(parts), e)
    assert not gsam_perturbation([w], [g], 0.0)[0].any()


def test_the_objective_has_the_value_of_the_loss_and_the_gradient_of_the_direction() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    weights, before = list(model.parameters()), [p.detach().clone() for p in model.parameters()]
    x, y = DATA.inputs.double(), DATA.labels
    losses, outputs = GSAM(0.2, 0.3)(model, x, y, torch.arange(32))
    assert all(torch.equal(p, b) for p, b in zip(weights, before))
    torch.testing.assert_close(losses, F.cross_entropy(model(x), y, reduction="none"))
    torch.testing.assert_close(outputs, model(x))
    found = torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), weights)])
    g1 = torch.autograd.grad(F.cross_entropy(model(x), y), weights)
    with torch.no_grad():
        for p, e in zip(weights, gsam_perturbation(before, g1, 0.2)):
            p.add_(e)
    g2 = torch.autograd.grad(F.cross_entropy(model(x), y), weights)
    wanted = gsam_direction(torch.cat([g.flatten() for g in g1]), torch.cat([g.flatten() for g in g2]), 0.3)
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, torch.cat([g.flatten() for g in g1]))


def test_radius_zero_is_plain_training() -> None:
    plain = fit(DATA, RECIPE, Context())
    flat = fit(DATA, RECIPE, Context(), objective=GSAM(0.0, 0.4))
    for a, b in zip(plain.model.parameters(), flat.model.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_batch_statistics_are_those_of_the_first_pass() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    other = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    other.load_state_dict(model.state_dict())
    GSAM(0.5)(model, DATA.inputs, DATA.labels, torch.arange(32))
    other(DATA.inputs)
    for a, b in zip(model.buffers(), other.buffers()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("options, text", [({"rho": -1.0}, "rho=-1.0"), ({"alpha": -0.1}, "alpha=-0.1")])
def test_negative_numbers_are_refused(options: dict[str, float], text: str) -> None:
    with pytest.raises(ModicumError, match=f"{text}; expected a number >= 0"):
        GSAM(**options)


def test_shapes_are_checked() -> None:
    with pytest.raises(ModicumError, match=r"gradient is \(2,\) and perturbed \(3,\)"):
        gsam_direction(torch.zeros(2), torch.zeros(3))
