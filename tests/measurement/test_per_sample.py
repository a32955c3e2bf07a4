import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modicum.dataset import Dataset, Info
from modicum.errors import DataError, TrainingError
from modicum.measurement import per_sample
from modicum.measurement.layers import Convolution, Product, has_formula, terms_of
from modicum.measurement.per_sample import (
    PerSample,
    cross_entropy,
    gradient_norms,
    gradient_products,
    last_layer_gradients,
    log_odds,
    mean_gradient,
    per_sample_gradients,
    squared_error,
)
from modicum.models import build
from modicum.models.convnet import ConvNet
from modicum.models.resnet import ResNet9, ResNet18
from modicum.models.simple import MLP, Linear
from modicum.models.text import Bag, Transformer

N = 7


def images(channels=3, side=16):
    return torch.randn(N, channels, side, side)


def tokens(length=6):
    return torch.randint(0, 12, (N, length))


class Twice(nn.Module):
    """One layer that is used twice, a weight that is used without its layer, a parameter of its own, and a recurrence."""

    def __init__(self):
        super().__init__()
        self.embedding, self.again = nn.Embedding(12, 4, padding_idx=0), nn.Linear(4, 4)
        self.gru, self.shift, self.scale = nn.GRUCell(4, 4), nn.Parameter(torch.randn(4)), nn.LayerNorm(4)
        self.head = nn.Linear(4, 12)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        h = torch.tanh(self.again(self.again(self.embedding(x) + self.shift)))
        return self.head(self.scale(self.gru(h[:, 0], F.linear(h[:, 1], self.again.weight))))


def models():
    """Every architecture of ours, and layers of every kind with uncommon options."""
    torch.manual_seed(0)
    grouped = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2, stride=2, dilation=2, padding=(2, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 5, 1, bias=False),
        nn.BatchNorm2d(5),
        nn.Conv2d(5, 4, 3, padding="same"),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    grouped(torch.randn(3, 4, 8, 8))  # sets the statistics too
    sequence = nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(inplace=True), nn.LayerNorm((5, 8)), nn.Flatten(), nn.Linear(40, 10)
    )
    normed = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.Flatten(), nn.LazyLinear(10), nn.BatchNorm1d(10)
    )
    normed(images())
    attention = nn.Sequential(
        nn.Embedding(12, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(48, 10)
    )
    frozen = MLP((4,), 10, hidden=5)
    frozen.body[0].requires_grad_(False)
    return {
        "linear": (Linear((4,), 10), torch.randn(N, 4)),
        "mlp": (MLP((4,), 10, hidden=8), torch.randn(N, 4)),
        "convnet": (ConvNet((3, 16, 16), 10, width=4), images()),
        "resnet9": (ResNet9((3, 8, 8), 10, width=2), images(side=8)),
        "resnet18": (ResNet18((3, 8, 8), 10, width=2), images(side=8)),
        "bag": (Bag(12, 6, 10, width=5), tokens()),
        "transformer": (Transformer(12, 6, 10, width=8, heads=2), tokens()),
        "grouped": (grouped, images(4, 8)),
        "sequence": (sequence, torch.randn(N, 5, 6)),
        "long sequence": (nn.Sequential(nn.Linear(2, 3), nn.Flatten(), nn.Linear(60, 10)), torch.randn(N, 20, 2)),
        "normed": (normed, images()),
        "attention": (attention, tokens()),
        "frozen": (frozen, torch.randn(N, 4)),
        "twice": (Twice(), tokens(2)),
    }


MODELS = models()


def problem(name):
    model, x = MODELS[name]
    x = x.double() if x.is_floating_point() else x
    return model.double().train(), x, torch.arange(N) % 10


def one_by_one(model, x, y, function):
    model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        value = function(model(x[i : i + 1]), y[i : i + 1]).sum()
        found = torch.autograd.grad(value, parameters, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize("function", [cross_entropy, log_odds])
@pytest.mark.parametrize("name", MODELS)
def test_all_forms_are_the_gradients_of_a_loop(name, function):
    model, x, y = problem(name)
    if name == "resnet18":
        x = x[:3]
        y = y[:3]
    expected = one_by_one(model, x, y, function)
    model.train()
    direction = torch.randn(expected.shape[1], dtype=torch.float64)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(per_sample_gradients(model, x, y, function), expected, **close)
    torch.testing.assert_close(gradient_norms(model, x, y, function), expected.norm(dim=1), **close)
    torch.testing.assert_close(mean_gradient(model, x, y, function), expected.mean(0), **close)
    torch.testing.assert_close(gradient_products(model, x, y, direction, function), expected @ direction, **close)
    assert all(module.training for module in model.modules()), "the model is as it was"


@pytest.mark.parametrize("name", ["linear", "mlp", "convnet", "resnet9", "bag", "transformer", "sequence"])
def test_last_layer_in_closed_form(name):
    model, x, y = problem(name)
    errors, features = last_layer_gradients(model, x, y)
    expected = one_by_one(model, x, y, cross_entropy)
    whole = torch.cat([(errors[:, :, None] * features[:, None, :-1]).flatten(1), errors], 1)
    torch.testing.assert_close(whole, expected[:, -whole.shape[1] :], rtol=1e-10, atol=1e-10)
    probabilities = model(x).softmax(1)
    torch.testing.assert_close(errors, probabilities - F.one_hot(y, 10), rtol=1e-10, atol=1e-10)
    assert bool((features[:, -1] == 1).all())
    assert not errors.requires_grad


def test_last_layer_norm_is_the_identity_of_grand():
    model, x, y = problem("linear")
    errors = (model(x).softmax(1) - F.one_hot(y, 10)).norm(dim=1)
    expected = errors * (1 + x.square().sum(1)).sqrt()
    torch.testing.assert_close(gradient_norms(model, x, y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name, mapped", [("mlp", set()), ("resnet9", set()), ("transformer", {"positions"})])
def test_layers_have_formulas(name, mapped):
    model, x, y = problem(name)
    engine = PerSample(model)
    ((_, terms),) = engine.terms(x, y)
    assert len(terms) == len(list(model.parameters()))
    owned = {f"{layer}.{key}" for layer in engine.layers for key in ("weight", "bias")}
    assert set(engine.parameters) - owned == mapped


def test_a_weight_that_is_used_twice_is_not_taken_for_one_that_is_used_once():
    model, x, y = problem("twice")
    engine = PerSample(model)
    list(engine.terms(x, y))
    assert set(engine.layers) == {"scale", "head"}  # of the head the bias


@pytest.mark.parametrize("times", [1, 3, 40])
def test_both_forms_of_the_norm_agree(times):
    term = Product(torch.randn(4, 2, times, 5).double(), torch.randn(4, 2, times, 7).double())
    torch.testing.assert_close(term.squares(), term.whole().square().sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 9])
def test_both_forms_of_the_norm_of_a_convolution_agree(side):
    layer = nn.Conv2d(8, 12, 3, groups=2, padding=1).double()
    term = Convolution(layer, torch.randn(4, 8, side, side).double(), torch.randn(4, 12, side, side).double())
    torch.testing.assert_close(term.squares(), term.whole().square().sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(term._product().whole(), term.whole(), rtol=1e-12, atol=1e-12)


def test_blocks_give_the_whole(monkeypatch):
    model, x, y = problem("transformer")
    whole, norms = per_sample_gradients(model, x, y), gradient_norms(model, x, y)
    products = gradient_products(model, x, y, whole[0])
    for rows in (1, 2, 3):
        monkeypatch.setattr(per_sample, "ROWS", rows)
        torch.testing.assert_close(per_sample_gradients(model, x, y), whole, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(gradient_norms(model, x, y), norms, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(gradient_products(model, x, y, whole[0]), products, rtol=1e-12, atol=1e-14)
    monkeypatch.setattr(per_sample, "ROWS", 256)
    monkeypatch.setattr(per_sample, "BLOCK", 2 * whole.shape[1])
    parts = [(part, torch.cat(pieces, 1)) for part, pieces in PerSample(model).blocks(x, y)]
    assert [part.start for part, _ in parts] == list(range(0, N, 2))
    torch.testing.assert_close(torch.cat([rows for _, rows in parts]), whole, rtol=1e-12, atol=1e-14)


def test_soft_labels_and_regression():
    model, x, _ = problem("mlp")
    soft = torch.rand(N, 10, dtype=torch.float64).softmax(1)
    torch.testing.assert_close(per_sample_gradients(model, x, soft), one_by_one(model, x, soft, cross_entropy))
    line, targets = nn.Linear(4, 1).double(), torch.randn(N, dtype=torch.float64)
    expected = 2 * (line(x)[:, 0] - targets)[:, None] * F.pad(x, (0, 1), value=1.0)
    torch.testing.assert_close(per_sample_gradients(line, x, targets, squared_error), expected.detach())


def test_log_odds_is_exact_where_the_probability_is_one():
    logits = torch.tensor([[1000.0, 0.0, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    f = log_odds(logits, torch.tensor([0, 2]))
    assert float(f[0]) == pytest.approx(1000 - torch.tensor(2.0).log().item())
    p = logits.softmax(1)[1, 2]
    assert float(f[1]) == pytest.approx(float((p / (1 - p)).log()))
    torch.testing.assert_close(cross_entropy(logits, torch.tensor([0, 2])), (-f).exp().log1p())


class Silent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.head = nn.Parameter(torch.ones(3)), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x * self.gate if float(x.sum()) > -1e9 else x)


@pytest.mark.parametrize(
    "make, text",
    [
        (
            lambda: per_sample_gradients(Silent(), torch.randn(3, 3), torch.zeros(3).long()),
            "no formula for gate of Silent",
        ),
        (lambda: gradient_norms(nn.ReLU(), torch.randn(3, 3), torch.zeros(3).long()), "ReLU has no parameters"),
        (lambda: gradient_norms(nn.Linear(3, 2), torch.randn(3, 3), torch.zeros(2).long()), "3 rows and targets 2"),
        (lambda: mean_gradient(nn.Linear(3, 2), torch.randn(0, 3), torch.zeros(0).long()), "at least one"),
        (
            lambda: gradient_products(nn.Linear(3, 2), torch.randn(3, 3), torch.zeros(3).long(), torch.zeros(5)),
            r"direction has shape \(5,\); expected \(8,\)",
        ),
        (lambda: last_layer_gradients(nn.Flatten(), torch.randn(3, 3), torch.zeros(3).long()), "runs no nn.Linear"),
        (
            lambda: last_layer_gradients(
                nn.Sequential(nn.Linear(4, 2), nn.Flatten()), torch.randn(3, 5, 4), torch.zeros(3).long()
            ),
            "expected one row a sample",
        ),
    ],
)
def test_errors_name_what_is_wrong(make, text):
    with pytest.raises((DataError, TrainingError), match=text):
        make()


def test_what_has_a_formula():
    assert has_formula(nn.Conv2d(1, 1, 3))
    for other in (nn.Conv2d(1, 1, 3, padding_mode="circular"), nn.Conv1d(1, 1, 3), nn.Embedding(3, 2, max_norm=1.0)):
        assert not has_formula(other)
    assert terms_of(nn.Linear(2, 1), torch.zeros(2), torch.zeros(1)) is None


def test_norms_and_products_do_not_form_the_gradients():
    code = """
import torch
from modicum.ledger import peak_bytes
from modicum.measurement.per_sample import gradient_norms, gradient_products
from modicum.models.simple import MLP
torch.set_num_threads(1)
model, x, y = MLP((256,), 10, hidden=700), torch.randn(600, 256), torch.arange(600) % 10
p = sum(q.numel() for q in model.parameters())
gradient_norms(model, x[:300], y[:300]), gradient_products(model, x[:300], y[:300], torch.ones(p))
before = peak_bytes() // 1024
gradient_norms(model, x, y), gradient_products(model, x, y, torch.ones(p))
print(p, peak_bytes() // 1024 - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    p, grown = map(int, out.split())
    assert grown * 1024 < 20 * 4 * p  # the gradients would be 600 * 4 * p


def test_a_model_of_a_recipe_works():
    data = Dataset(torch.randn(5, 4), torch.arange(5) % 2, info=Info(classes=("a", "b")))
    assert per_sample_gradients(build("auto", data), data.inputs, data.targets).shape[0] == 5
