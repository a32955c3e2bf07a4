import pytest
import torch
from torch import nn

from modicum.errors import DataError, ModicumError
from modicum.measurement.curvature import MeanLoss, losses_of


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n=23, seed=0):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=draw(seed), dtype=torch.float64)
    x = torch.randn(n, 4, generator=draw(seed + 1), dtype=torch.float64)
    return model, x, torch.randint(3, (n,), generator=draw(seed + 2))


def value(mean, theta):
    return mean._losses(theta, mean.inputs, mean.targets).mean() + mean.l2 / 2 * theta.square().sum()


@pytest.mark.parametrize("loss", ["cross-entropy", "squared", lambda z, y: (z.exp().sum(1) - z[:, 0]) ** 2])
def test_hessian_products_equal_autograd(loss):
    model, x, y = problem()
    y = torch.randn(len(x), 3, generator=draw(5), dtype=torch.float64) if loss == "squared" else y
    mean = MeanLoss(model, x, y, loss, l2=0.1, block=7)
    by_autograd = torch.autograd.functional.hessian(lambda theta: value(mean, theta), mean.theta)
    vectors = torch.randn(mean.size, 3, generator=draw(), dtype=torch.float64)
    torch.testing.assert_close(mean.matrix(mean.hessian_product), by_autograd, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(mean.hessian_product(vectors), by_autograd @ vectors, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(mean.hessian_product(vectors[:, 0]), by_autograd @ vectors[:, 0], rtol=1e-10, atol=1e-11)


def test_gauss_newton_equals_the_jacobians():
    model, x, y = problem()
    mean = MeanLoss(model, x, y, l2=0.1, block=7)
    jacobian = torch.autograd.functional.jacobian(lambda theta: mean._outputs(theta, x), mean.theta)
    p = model(x).detach().softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    by_hand = torch.einsum("nap,nab,nbq->pq", jacobian, inner, jacobian) / len(x) + 0.1 * torch.eye(
        mean.size, dtype=p.dtype
    )
    torch.testing.assert_close(mean.matrix(mean.gauss_newton_product), by_hand, rtol=1e-10, atol=1e-11)
    vector = torch.randn(mean.size, 1, generator=draw(), dtype=torch.float64)
    torch.testing.assert_close(mean.gauss_newton_product(vector), by_hand @ vector, rtol=1e-8, atol=1e-8)


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    _, x, y = problem()
    mean = MeanLoss(nn.Linear(4, 3).double(), x, y, block=5)
    torch.testing.assert_close(mean.matrix(mean.gauss_newton_product), mean.matrix(mean.hessian_product))


def test_gradients_and_products_with_them():
    model, x, y = problem()
    mean = MeanLoss(model, x, y, l2=0.3, block=7)
    each = torch.stack([MeanLoss(model, x[i : i + 1], y[i : i + 1]).gradient() for i in range(len(x))])
    torch.testing.assert_close(mean.gradients(slice(None)), each)
    torch.testing.assert_close(mean.gradient(), each.mean(0) + 0.3 * mean.theta)
    vectors = torch.randn(mean.size, 3, generator=draw(), dtype=torch.float64)
    torch.testing.assert_close(mean.gradient_products(vectors), each @ vectors)
    torch.testing.assert_close(mean.gradient_products(vectors[:, :1]), each @ vectors[:, :1])


def test_input_gradient_is_a_finite_difference():
    model, x, y = problem(5)
    mean = MeanLoss(model, x, y, block=2)
    v = torch.randn(mean.size, 1, generator=draw(), dtype=torch.float64)
    found = mean.input_gradient(v[:, 0])
    for column in range(4):
        step = torch.zeros_like(x)
        step[:, column] = 1e-6
        up, down = (mean.with_(x + s, y).gradient_products(v)[:, 0] for s in (step, -step))
        torch.testing.assert_close(found[:, column], (up - down) / 2e-6, rtol=1e-5, atol=1e-6)


def test_only_some_parameters():
    model, x, y = problem()
    whole, part = MeanLoss(model, x, y), MeanLoss(model, x, y, only=("2.weight",))
    assert part.size == 15
    at = slice(25, 40)
    torch.testing.assert_close(
        part.matrix(part.hessian_product), whole.matrix(whole.hessian_product)[at, at], rtol=1e-9, atol=1e-11
    )


def test_attention_has_products():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True).double().eval()
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 2).double()).eval()
    mean = MeanLoss(model, torch.randn(5, 3, 4, generator=draw(), dtype=torch.float64), torch.arange(5) % 2, block=2)
    v = torch.randn(mean.size, generator=draw(), dtype=torch.float64)
    up, down = (torch.func.grad(lambda theta: value(mean, theta))(mean.theta + sign * 1e-5 * v) for sign in (1, -1))
    torch.testing.assert_close(mean.hessian_product(v), (up - down) / 2e-5, rtol=1e-4, atol=1e-6)


def test_losses_of_sequences_add_up_their_positions():
    z, y = torch.randn(2, 3, 4, generator=draw()), torch.tensor([[0, 1, 2], [3, 3, 0]])
    by_hand = -z.log_softmax(2).gather(2, y[..., None])[..., 0].sum(1)
    torch.testing.assert_close(losses_of("cross-entropy", z, y), by_hand)
    soft = torch.eye(4)[y]
    torch.testing.assert_close(losses_of("cross-entropy", z, soft), by_hand)


def test_the_model_is_not_touched():
    model, x, y = problem()
    before = [p.clone() for p in model.parameters()]
    mean = MeanLoss(model, x, y)
    mean.hessian_product(mean.gradient())
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters()))


@pytest.mark.parametrize(
    "change, error, text",
    [
        (
            {"model": nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))},
            ModicumError,
            r"layer '0' \(BatchNorm1d\) is in",
        ),
        (
            {"model": nn.Sequential(nn.Dropout(), nn.Linear(4, 3))},
            ModicumError,
            r"layer '0' \(Dropout\).*call model.eval",
        ),
        ({"inputs": torch.zeros(0, 4), "targets": torch.zeros(0).long()}, DataError, "inputs have 0 rows"),
        ({"inputs": torch.zeros(3, 4)}, DataError, "inputs have 3 rows and targets 23"),
        ({"loss": lambda z, y: (z.argmax(1) != y).double()}, ModicumError, "does not depend on the parameters"),
        ({"loss": lambda z, y: nn.functional.cross_entropy(z, y)}, ModicumError, "use reduction='none'"),
        ({"loss": "hinge"}, ModicumError, "loss='hinge'; expected 'cross-entropy'"),
        ({"l2": -1.0}, ModicumError, "l2=-1.0; expected a number >= 0"),
        ({"only": ("7.weight",)}, ModicumError, "no parameter '7.weight'"),
        ({"model": nn.Flatten()}, ModicumError, "model Flatten has no parameters"),
    ],
)
def test_errors(change, error, text):
    model, x, y = problem()
    given = {"model": model, "inputs": x, "targets": y} | change
    if "model" in change:
        given["inputs"] = x.float()
    with pytest.raises(error, match=text):
        MeanLoss(**given)


def test_tokens_cannot_be_perturbed():
    model = nn.Sequential(nn.EmbeddingBag(5, 4), nn.Linear(4, 2))
    mean = MeanLoss(model, torch.randint(5, (3, 2), generator=draw()), torch.tensor([0, 1, 0]))
    with pytest.raises(DataError, match=r"dtype torch.int64; only floating inputs can be perturbed"):
        mean.input_gradient(mean.theta)
