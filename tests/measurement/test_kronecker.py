import pytest
import torch
from torch import nn

from modicum.errors import DataError, ModicumError
from modicum.measurement.curvature import MeanLoss
from modicum.measurement.kronecker import kronecker_factors
from modicum.measurement.kronecker_scores import kronecker_scores, kronecker_self_scores


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=draw(seed), dtype=torch.float64)


def spread(model, scale=1.0):
    for at, p in enumerate(model.parameters()):
        p.data = scale * numbers(*p.shape, seed=at)
    return model.double().eval()


def whole(kronecker):
    return kronecker.product(torch.eye(sum(layer.size for layer in kronecker.layers), dtype=torch.float64))


def eigenvectors(factors):
    """(P, P) rows: the Kronecker eigenvectors in the order of the parameters."""
    basis = torch.einsum("oj,ik->jkoi", factors.outputs, factors.inputs).flatten(0, 1)
    return torch.cat([basis[..., :-1].flatten(1), basis[..., -1]], 1) if factors.bias else basis.flatten(1)


NETS = {
    "linear": lambda: (nn.Linear(4, 3), numbers(30, 4)),
    "mlp": lambda: (nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3, bias=False)), numbers(30, 4)),
    "conv": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding="same"), nn.ReLU(), nn.Conv2d(3, 4, 2, stride=2, padding=1, bias=False),
            nn.Flatten(), nn.Linear(36, 3),
        ),
        numbers(12, 2, 4, 4),
    ),
    "sequence": lambda: (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), numbers(12, 6, 4)),
}  # fmt: skip


def net(name):
    model, x = NETS[name]()
    return spread(model, 0.5), x


@pytest.mark.parametrize("name", NETS)
def test_corrected_eigenvalues_are_the_diagonal_of_the_fisher_matrix_in_their_basis(name):
    model, x = net(name)
    y = torch.randint(3, (len(x), 6) if name == "sequence" else (len(x),), generator=draw(1))
    found = kronecker_factors(model, x, y, labels="data", block=5)
    mean = MeanLoss(model, x, y, only=found.names)
    each = mean.gradients(slice(None))
    fisher = each.T @ each / len(x)
    start = 0
    for factors in found.layers:
        q = eigenvectors(factors)
        at = slice(start, start := start + factors.size)
        assert torch.allclose(q @ q.T, torch.eye(factors.size, dtype=q.dtype), atol=1e-12)
        diagonal = ((q @ fisher[at, at]) * q).sum(1)
        assert (diagonal - factors.eigenvalues.flatten()).abs().max() <= 1e-12 * max(1, float(diagonal.max()))
    assert start == mean.size


def test_of_softmax_regression_they_are_the_diagonal_of_the_gauss_newton_matrix():
    model, x = net("linear")
    found = kronecker_factors(model, x, labels="expected").layers[0]
    mean = MeanLoss(model, x, torch.zeros(len(x), dtype=torch.int64))
    q = eigenvectors(found)
    diagonal = ((q @ mean.matrix(mean.gauss_newton_product)) * q).sum(1)
    assert (diagonal - found.eigenvalues.flatten()).abs().max() <= 1e-12


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["linear", "mlp", "conv"])
def test_ek_fac_is_never_farther_from_the_matrix_than_k_fac(name, seed):
    model, x = net(name)
    y = torch.randint(3, (len(x),), generator=draw(seed))
    better, plain = (kronecker_factors(model, x, y, labels="data", corrected=c) for c in (True, False))
    mean = MeanLoss(model, x, y, only=better.names)
    each = mean.gradients(slice(None))
    fisher, start = each.T @ each / len(x), 0
    error, plain_error = whole(better), whole(plain)
    for factors in better.layers:
        at = slice(start, start := start + factors.size)
        norms = [(m[at, at] - fisher[at, at]).norm() for m in (error, plain_error)]
        assert norms[0] <= norms[1] * (1 + 1e-12)


def test_k_fac_is_exact_for_one_sample_and_factors_are_products():
    model, x = net("linear")
    y = torch.tensor([1])
    found = kronecker_factors(model, x[:1], y, labels="data", corrected=False)
    g = MeanLoss(model, x[:1], y).gradient()
    torch.testing.assert_close(whole(found), torch.outer(g, g), rtol=1e-10, atol=1e-12)


def test_labels_drawn_from_the_model_tend_to_their_expectation():
    model, x = net("mlp")
    expected = kronecker_factors(model, x, labels="expected", corrected=False)
    drawn = kronecker_factors(model, x.repeat(400, 1), labels="model", corrected=False)
    for a, b in zip(expected.layers, drawn.layers):
        matrices = [f.outputs @ torch.diag(f.eigenvalues.sum(1)) @ f.outputs.T for f in (a, b)]
        assert (matrices[0] - matrices[1]).norm() < 0.05 * matrices[0].norm()


def test_labels_of_the_model_are_those_of_the_generator():
    model, x = net("mlp")
    one, again, other = (kronecker_factors(model, x, draw=draw(s)) for s in (3, 3, 4))
    assert torch.equal(one.layers[0].eigenvalues, again.layers[0].eigenvalues)
    assert not torch.equal(one.layers[0].eigenvalues, other.layers[0].eigenvalues)
    state = torch.get_rng_state()
    kronecker_factors(model, x)
    assert torch.equal(state, torch.get_rng_state())


def test_squared_loss_has_the_unit_gaussian():
    model, x = net("linear")
    found = kronecker_factors(model, x, loss="squared", labels="expected")
    mean = MeanLoss(model, x, torch.zeros(len(x), 3, dtype=torch.float64), "squared")
    torch.testing.assert_close(whole(found), mean.matrix(mean.gauss_newton_product), rtol=1e-10, atol=1e-12)


def test_solve_is_the_inverse():
    model, x = net("mlp")
    found = kronecker_factors(model, x, labels="expected")
    b = numbers(48, 3)
    torch.testing.assert_close(found.product(found.solve(b, delta=0.1)) + 0.1 * found.solve(b, delta=0.1), b)
    damped = found.solve(b[:, 0])
    deltas = torch.cat([torch.full((f.size,), 0.1 * float(f.eigenvalues.mean())) for f in found.layers])
    torch.testing.assert_close(found.product(damped) + deltas * damped, b[:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_scores_without_gradients_equal_those_with(name, monkeypatch):
    model, x = net(name)
    y = torch.randint(3, (len(x), 6) if name == "sequence" else (len(x),), generator=draw(1))
    found = kronecker_factors(model, x, y, labels="data")
    each = MeanLoss(model, x, y, only=found.names).gradients(slice(None))
    by_hand = each @ found.solve(each[:5].T, l2=0.01)
    for entries in (1 << 25, 1):
        monkeypatch.setattr("modicum.measurement.kronecker_scores.ENTRIES", entries)
        monkeypatch.setattr("modicum.measurement.kronecker_scores.PRODUCTS", entries)
        scores = kronecker_scores(found, model, (x, y), (x[:5], y[:5]), l2=0.01, block=7)
        torch.testing.assert_close(scores, by_hand, rtol=1e-9, atol=1e-9)
        own = kronecker_self_scores(found, model, (x, y), l2=0.01, block=7)
        torch.testing.assert_close(own[:5], by_hand[:5].diagonal(), rtol=1e-9, atol=1e-9)


def test_a_layer_that_is_used_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x).tanh())

    model, x, y = spread(Twice(), 0.5), numbers(10, 3), torch.arange(10) % 3
    found = kronecker_factors(model, x, y, labels="data")
    each = MeanLoss(model, x, y).gradients(slice(None))
    q = eigenvectors(found.layers[0])
    diagonal = ((each @ q.T) ** 2).mean(0)
    torch.testing.assert_close(found.layers[0].eigenvalues.flatten(), diagonal)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.a(x)


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    "model, options, text",
    [
        (nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), {}, r"layer '1' is a LayerNorm.*layers=\['0'\].*solver='cg'"),
        (nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), {}, "layer '0' is a Conv2d.*with groups=1.*another solver"),
        (nn.Linear(4, 3), {"layers": ("x",)}, "the model has no layer 'x'"),
        (nn.Flatten(), {}, "model Flatten has no layer with parameters"),
        (Unused(), {}, "layer 'b' takes no part in the forward pass"),
        (tied(), {}, "layers '0' and '1' share one weight"),
        (nn.Sequential(nn.Linear(4, 3), nn.Dropout()).train(), {}, r"layer '1' \(Dropout\) is in training mode"),
        (nn.Linear(4, 3), {"labels": "true"}, "labels='true' with loss='cross-entropy'"),
        (nn.Linear(4, 3), {"loss": lambda z, y: z.sum(1)}, "expected 'data', or"),
        (nn.Linear(4, 3), {"labels": "data"}, "labels='data' needs targets"),
    ],
)
def test_errors(model, options, text):
    with pytest.raises(ModicumError, match=text):
        kronecker_factors(model, torch.randn(5, 4, generator=draw()), **options)


def test_no_samples_and_no_damping():
    model, x = net("linear")
    with pytest.raises(DataError, match="inputs have 0 rows"):
        kronecker_factors(model, x[:0])
    with pytest.raises(ModicumError, match=r"layer '' has an eigenvalue of .* with delta=0.0.*greater delta"):
        kronecker_factors(model, x[:, :1] * torch.zeros(1, 4), labels="expected").solve(torch.ones(15), delta=0.0)
