import numpy as np
import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.measurement import Gradients
from modicum.scores import Budget
from modicum.selection import DeepFool, deepfool
from modicum.training.recipe import Recipe


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, d=5, c=4, dtype=torch.float64):
    model = nn.Sequential(nn.Linear(d, 16), nn.Tanh(), nn.Linear(16, c)).to(dtype)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=draw(seed), dtype=dtype)
    return model


def test_an_affine_model_is_exact_in_one_step():
    model, x = nn.Linear(5, 4).double(), torch.randn(30, 5, generator=draw(), dtype=torch.float64)
    f, w = model(x).detach(), model.weight.detach()
    c = f.argmax(1)
    distances = (f.gather(1, c[:, None]) - f) / (w[c][:, None] - w).norm(dim=-1)
    distances[torch.arange(30), c] = torch.inf
    expected = distances.amin(1)
    torch.testing.assert_close(deepfool(model, x, steps=1), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(deepfool(model, x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("model", [nn.Linear(5, 4).double(), network()])
def test_the_scale_of_the_outputs_does_not_matter(model):
    x = torch.randn(20, 5, generator=draw(), dtype=torch.float64)
    scaled = nn.Sequential(model, Times(8.0))
    torch.testing.assert_close(deepfool(scaled, x), deepfool(model, x), rtol=1e-12, atol=0)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def naive(model, x0, steps=50, eta=1e-4):
    """One sample, one class at a time."""
    walked, x = torch.zeros_like(x0), x0
    own = int(model(x0).argmax())
    for _ in range(steps):
        x = (x0 + (1 + eta) * walked).requires_grad_()
        f = model(x)
        if int(f.argmax()) != own:
            break
        gradients = [torch.autograd.grad(f[k], x, retain_graph=True)[0] for k in range(len(f))]
        best = None
        for k in range(len(f)):
            if k != own:
                w = gradients[k] - gradients[own]
                distance = float(((f[own] - f[k]) / w.norm()).detach())
                if best is None or distance < best[0]:
                    best = (distance, distance * w / w.norm())
        walked = walked + best[1].detach()
    return float(walked.norm())


def test_together_is_one_after_another():
    model, x = network(), torch.randn(25, 5, generator=draw(3), dtype=torch.float64)
    expected = torch.tensor([naive(model, row) for row in x], dtype=torch.float64)
    torch.testing.assert_close(deepfool(model, x), expected, rtol=1e-9, atol=1e-12)


def test_blocks_are_the_whole(monkeypatch):
    import importlib

    model, x = network(), torch.randn(25, 5, generator=draw(3), dtype=torch.float64)
    whole = deepfool(model, x)
    monkeypatch.setattr(importlib.import_module("modicum.selection.deepfool"), "ENTRIES", 100)
    torch.testing.assert_close(deepfool(model, x), whole)


def test_the_answer_changes_just_beyond_the_distance_and_not_well_before():
    model, x = network(seed=5), torch.randn(1, 5, generator=draw(7), dtype=torch.float64)
    distance = float(deepfool(model, x)[0])
    directions = torch.nn.functional.normalize(torch.randn(4000, 5, generator=draw(1), dtype=torch.float64))
    assert int((model(x + 0.3 * distance * directions).argmax(1) != model(x).argmax(1)).sum()) == 0
    assert int((model(x + 3 * distance * directions).argmax(1) != model(x).argmax(1)).sum()) > 0


def test_a_dead_model_is_infinitely_far_and_a_tie_is_at_the_border():
    dead = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    dead[0].bias.data[:] = -100
    assert torch.isinf(deepfool(dead, torch.zeros(3, 3))).all()
    tie = nn.Linear(2, 2)
    tie.weight.data, tie.bias.data = torch.eye(2), torch.zeros(2)
    assert deepfool(tie, torch.tensor([[1.0, 1.0]])).tolist() == [0]


def test_only_the_most_probable_classes_are_looked_at():
    model, x = nn.Linear(5, 40).double(), torch.randn(30, 5, generator=draw(), dtype=torch.float64)
    few, all_of_them = deepfool(model, x, classes=3, steps=1), deepfool(model, x, classes=40, steps=1)
    assert bool((few >= all_of_them - 1e-12).all())
    assert not torch.allclose(few, all_of_them)


def test_evaluation_mode_images_and_no_writes():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(16, 3)
    )
    x = torch.rand(6, 1, 4, 4, generator=draw())
    before, state = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}
    first = deepfool(model, x)
    assert model.training
    assert model[3].training
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(deepfool(model, x), first)
    assert first.dtype == torch.float32
    torch.testing.assert_close(deepfool(model, x.flip(0)), first.flip(0))


def test_gradients_that_are_turned_off_and_another_dtype_than_the_model():
    model, x = network(), torch.randn(6, 5, generator=draw(), dtype=torch.float64)
    expected = deepfool(model, x)
    with torch.no_grad():
        torch.testing.assert_close(deepfool(model, x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(deepfool(model, x.clone()), expected)
    short = deepfool(model, x.float())
    assert short.dtype == torch.float32
    torch.testing.assert_close(short.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "inputs, options, text",
    [
        (torch.zeros(3, 2), {"steps": 0}, "steps=0; expected an integer >= 1"),
        (torch.zeros(3, 2), {"classes": 1}, "classes=1; expected an integer >= 2"),
        (torch.zeros(3, 2, dtype=torch.int64), {}, "inputs is torch.int64; expected a tensor of floating"),
        (np.zeros((3, 2)), {}, "inputs is ndarray"),
        (torch.full((3, 2), torch.nan), {}, r"inputs\[0, 0\] is nan"),
        (torch.zeros(0, 2), {}, "not empty"),
    ],
)
def test_errors_name_the_argument(inputs, options, text):
    with pytest.raises(DataError, match=text):
        deepfool(nn.Linear(2, 2), inputs, **options)


def test_models_that_do_not_fit():
    with pytest.raises(DataError, match=r"model gives outputs of shape \(3, 1\); expected \(3, c\) with c >= 2"):
        deepfool(nn.Linear(2, 1), torch.zeros(3, 2))
    broken = nn.Linear(2, 2)
    broken.bias.data[:] = torch.nan
    with pytest.raises(TrainingError, match="an output of the model is not finite"):
        deepfool(broken, torch.zeros(3, 2))


def splits(modality="tabular"):
    x = torch.randn(40, 5, generator=draw())
    data = Dataset(x, x[:, :3].argmax(1), ids=np.arange(40)[::-1].copy(), info=Info(classes=tuple("abc")))
    return Splits(data[:30], data[30:], data[30:])


def test_the_method_keeps_the_nearest():
    data, recipe = splits(), Recipe(model="mlp(hidden=6, layers=1)", epochs=4, batch_size=8)
    table = Gradients((0.5,)).measure(data, recipe, Context())
    chosen = DeepFool(until=0.5, per_class=False).select(data, Budget(keep=7), Context(), table)
    expected = deepfool(table.model(), data.train.prepare(data.train.inputs))
    np.testing.assert_allclose(chosen.values, expected, rtol=1e-3, atol=1e-5)
    assert chosen.positions.tolist() == np.sort(np.argsort(chosen.values)[:7]).tolist()
    each = DeepFool(until=0.5).select(data, Budget(per_class=2), Context(), table)
    assert np.bincount(data.train.targets[each.positions]).tolist() == [2, 2, 2]


def test_text_is_refused_and_options_are_checked():
    tokens = Dataset(torch.ones(4, 3, dtype=torch.int64), torch.tensor([0, 1, 0, 1]), info=Info(
        classes=("a", "b"), modality="text", vocabulary=("", "?", "x")))  # fmt: skip
    with pytest.raises(DataError, match="deepfool changes inputs a little, but text is token numbers"):
        DeepFool().select(Splits(tokens, tokens, tokens), Budget(keep=2), Context(), None)
    with pytest.raises(ModicumError, match="option classes=1; expected an integer >= 2"):
        DeepFool(classes=1)
