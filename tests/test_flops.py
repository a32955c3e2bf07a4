"""FLOPs against hand formulas, exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.flops import FlopTable, count_flops


def passes(forward: Callable[[], Tensor]) -> tuple[int, int]:
    with count_flops() as first:
        out = forward()
    with count_flops() as second:
        out.sum().backward()
    assert first.uncounted == second.uncounted == ()
    return first.flops, second.flops


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))


def test_mlp_first_layer_has_no_input_gradient() -> None:
    net = mlp()
    assert passes(lambda: net(torch.zeros(4, 10))) == (2400, 3200)
    assert passes(lambda: net(torch.zeros(4, 10, requires_grad=True))) == (2400, 4800)


@pytest.mark.parametrize("batch", [1, 2, 8, 64])
def test_linear_in_the_batch(batch: int) -> None:
    net = mlp()
    assert passes(lambda: net(torch.zeros(batch, 10))) == (600 * batch, 800 * batch)


def test_convolution() -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1)
    assert passes(lambda: layer(torch.zeros(4, 3, 16, 16))) == (442368, 442368)
    assert passes(lambda: layer(torch.zeros(4, 3, 16, 16, requires_grad=True))) == (442368, 884736)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_grouped_convolution_backward_is_twice_forward(groups: int) -> None:
    layer = nn.Conv2d(6, 12, 3, stride=2, groups=groups)
    forward = 2 * 5 * (7 * 7) * 12 * (6 // groups) * 9
    assert passes(lambda: layer(torch.zeros(5, 6, 15, 15, requires_grad=True))) == (forward, 2 * forward)


def test_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2)
    forward = 2 * 2 * (5 * 5) * 4 * 6 * 9
    assert passes(lambda: layer(torch.zeros(2, 4, 5, 5, requires_grad=True))) == (forward, 2 * forward)


def test_attention_flash_and_math() -> None:
    q, k, v = (torch.randn(2, 4, 32, 16, requires_grad=True) for _ in range(3))
    assert passes(lambda: F.scaled_dot_product_attention(q, k, v)) == (524288, 524288 * 5 // 2)
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        assert passes(lambda: F.scaled_dot_product_attention(q, k, v)) == (524288, 524288 * 2)


def test_double_backward() -> None:
    net = mlp()
    x = torch.randn(4, 10, requires_grad=True)
    for inputs, flops in (
        # forward 2400 and input gradient 2400; then the first weight, in the product of the input gradient (1600), the
        # gradient that reaches the ReLU there (1600), and through its (zero) derivative the weight's forward use (1600)
        ([net[0].weight], 4800 + 4800),
        # the second weight in the input gradient's product as well (800), and the input's own gradient (1600)
        (None, 4800 + 4800 + 800 + 1600),
    ):
        with count_flops() as counter:
            (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
            gradient.square().sum().backward(inputs=inputs)
        assert counter.flops == flops


def test_frozen_backbone_costs_no_backward() -> None:
    net = mlp()
    net[0].requires_grad_(False)
    assert passes(lambda: net(torch.zeros(4, 10))) == (2400, 2 * 4 * 20 * 5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_lstm(bidirectional: bool, layers: int) -> None:
    i, h, b, t = 6, 8, 3, 5
    directions = 2 if bidirectional else 1
    net = nn.LSTM(i, h, num_layers=layers, bidirectional=bidirectional)
    sizes = [i] + [h * directions] * (layers - 1)
    forward = sum(directions * 2 * 4 * h * (size + h) for size in sizes) * b * t
    assert passes(lambda: net(torch.randn(t, b, i))[0]) == (forward, 2 * forward)


def test_gru_and_matrix_vector_products() -> None:
    net = nn.GRU(6, 8)
    forward = 2 * 3 * 8 * (6 + 8) * 3 * 5
    assert passes(lambda: net(torch.randn(5, 3, 6))[0])[0] == forward
    m, v, u = torch.randn(7, 9), torch.randn(9), torch.randn(7)
    for product, flops in [
        (lambda: m @ v, 2 * 63), (lambda: v @ v, 18), (lambda: torch.vdot(v, v), 18),
        (lambda: torch.addmv(u, m, v), 2 * 63), (lambda: u.clone().addmv_(m, v), 2 * 63),
        (lambda: torch.baddbmm(torch.zeros(2, 3, 4), torch.ones(2, 3, 5), torch.ones(2, 5, 4)), 2 * 2 * 3 * 5 * 4),
        (lambda: torch.zeros(2, 3, 4).baddbmm_(torch.ones(2, 3, 5), torch.ones(2, 5, 4)), 2 * 2 * 3 * 5 * 4),
        (lambda: torch.addbmm(torch.zeros(3, 4), torch.ones(2, 3, 5), torch.ones(2, 5, 4)), 2 * 2 * 3 * 5 * 4),
        (lambda: torch.einsum("ij,kj->ik", m, m), 2 * 7 * 9 * 7),
        (lambda: torch.cdist(m, m, p=1.0), 2 * 7 * 7 * 9),
        (lambda: F.pdist(m), 2 * 21 * 9),
    ]:  # fmt: skip
        with count_flops() as counter:
            product()
        assert (counter.flops, counter.uncounted) == (flops, ())


def test_bilinear() -> None:
    net = nn.Bilinear(3, 4, 5)
    with count_flops() as counter:
        net(torch.randn(2, 3), torch.randn(2, 4))
    assert (counter.flops, counter.uncounted) == (2 * 2 * 3 * 4 * 5 + 2 * 2 * 4 * 5, ())


def encoder() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, batch_first=True, dropout=0.0)


def test_transformer_layer_with_and_without_its_fast_path() -> None:
    net, x = encoder(), torch.randn(2, 6, 16)
    linear = 2 * 2 * 6 * (3 * 16 * 16 + 16 * 16 + 2 * 16 * 32)
    attention = 4 * 2 * 6 * 6 * 16
    with count_flops() as training:
        net(x)
    net.eval()
    with torch.inference_mode(), count_flops() as fast:
        net(x)
    assert training.flops == fast.flops == linear + attention
    assert training.uncounted == fast.uncounted == ()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: type[torch.no_grad]) -> None:
    net = mlp()
    with mode(), count_flops() as counter:
        net(torch.zeros(4, 10))
    assert counter.flops == 2400


def test_vmap_of_models_and_per_sample_gradients() -> None:
    net, x = mlp(), torch.randn(4, 10)
    parameters = {k: v.detach() for k, v in net.named_parameters()}
    stacked = {k: torch.stack([v] * 3) for k, v in parameters.items()}
    with count_flops() as counter:
        torch.func.vmap(lambda p: torch.func.functional_call(net, p, (x,)))(stacked)
    assert counter.flops == 3 * 2400

    def loss(p: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(net, p, (sample[None],)).square().sum()

    with count_flops() as counter:
        torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    assert (counter.flops, counter.uncounted) == (5600, ())


def test_convolution_network_is_complete() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(4, 4), nn.GELU(), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.MaxPool2d(2),
        nn.Dropout(0.1), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3),
    )  # fmt: skip
    x, y = torch.randn(5, 1, 10, 10), torch.tensor([0, 1, 2, 0, 1])
    with count_flops() as counter:
        F.cross_entropy(net(x), y, label_smoothing=0.1).backward()
    assert counter.uncounted == ()
    conv, linear = 2 * 5 * 64 * 4 * 9, 2 * 5 * 16 * 3
    assert counter.flops == 2 * conv + 3 * linear


def test_optimizers_and_reductions_are_free() -> None:
    w = torch.randn(6, 6, requires_grad=True)
    with count_flops() as counter:
        for make in (torch.optim.SGD, torch.optim.AdamW):
            for options in ({"foreach": True}, {"fused": True}, {"foreach": False}):
                optimizer = make([w], lr=0.1, **options)
                (w.relu().softmax(1).logsumexp(0).sum() + w.norm() + w.std() + w.var(0).sum()).backward()
                nn.utils.clip_grad_norm_([w], 1.0)
                optimizer.step()
        w.sort(), w.topk(2), w.argsort(), w.cumsum(0), w.unique(), w.max(), w.median(), w[w > 0], w.isnan().any()
    assert (counter.flops, counter.uncounted) == (0, ())


def test_fourier_transforms_cost_n_log_n() -> None:
    x = torch.rand(3, 8, 16)
    for function, flops in (
        (lambda: torch.fft.fft(x.to(torch.complex64)), 5 * 3 * 8 * 16 * 4),
        (lambda: torch.fft.rfft(x), 5 * 3 * 8 * 16 * 4 // 2),
        (lambda: torch.fft.irfft(x[..., :9].to(torch.complex64), n=16), 5 * 3 * 8 * 16 * 4 // 2),
        (lambda: torch.fft.fft2(x.to(torch.complex64)), 5 * 3 * 8 * 16 * (3 + 4)),
    ):
        with count_flops() as counter:
            function()
        assert (counter.flops, counter.uncounted) == (flops, ())


def test_what_is_uncounted_is_listed() -> None:
    a = torch.eye(3) * 2
    with count_flops() as counter:
        torch.linalg.svd(a), torch.linalg.solve(a, a), torch.linalg.cholesky(a), torch.linalg.qr(a)
    names = " ".join(counter.uncounted)
    for word in ("_linalg_svd", "_linalg_solve_ex", "cholesky", "linalg_qr"):
        assert word in names
    assert counter.flops == 0


def test_an_unknown_custom_operation_is_listed() -> None:
    @torch.library.custom_op("modicum_test::mystery", mutates_args=())
    def mystery(x: Tensor) -> Tensor:
        return x @ x

    with count_flops() as counter:
        mystery(torch.eye(3))
    assert counter.uncounted == ("modicum_test.mystery",)


def test_values_are_those_without_counting() -> None:
    net, x = encoder(), torch.randn(2, 6, 16)
    plain = net(x)
    with count_flops():
        counted = net(x)
    assert torch.equal(plain, counted)


def test_checkpointing_counts_the_recomputation() -> None:
    from torch.utils.checkpoint import checkpoint

    net = mlp()
    x = torch.zeros(4, 10, requires_grad=True)
    with count_flops() as counter:
        checkpoint(net, x, use_reentrant=False, early_stop=False).sum().backward()
    assert counter.flops == 7200 + 2400


class Watched(nn.Linear):
    """Remembers whether a dispatch mode was on."""

    modes: list[int]

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(torch._C._len_torch_dispatch_stack())
        return super().forward(x)


def test_table_counts_a_shape_once_and_is_off_afterwards() -> None:
    net, table = Watched(3, 2), FlopTable()
    net.modes = []
    for size in (4, 4, 4, 1, 4, 1):
        with table.forward(size):
            out = net(torch.zeros(size, 3))
        with table.backward(size):
            out.sum().backward()
        assert table.charge(size) == (12 * size, 12 * size)
    assert net.modes == [1, 0, 0, 1, 0, 0]
    assert table.forward_flops == table.backward_flops == 12 * (4 * 4 + 2)
    assert table.forward(4) is table.backward(1), "a known shape makes no object"


def test_table_without_backward_and_repeated_charge() -> None:
    net, table = mlp(), FlopTable()
    with table.forward("valid"), torch.no_grad():
        net(torch.zeros(4, 10))
    assert table.charge("valid", times=3) == (2400, 0)
    assert (table.forward_flops, table.backward_flops) == (7200, 0)


def test_table_interrupted_inside_a_pass_counts_again() -> None:
    net, table = mlp(), FlopTable()

    def interrupted() -> None:
        with table.forward(4):
            net[0](torch.zeros(4, 10))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ModicumError, match="no step of shape 4 was counted"):
        table.charge(4)
    with table.forward(4):
        net(torch.zeros(4, 10))
    assert table.charge(4) == (2400, 0)


def test_table_resumes() -> None:
    from modicum.store import pack, unpack

    net, table = mlp(), FlopTable()
    key = ((4, 10), "float32")
    with table.forward(key):
        out = net(torch.zeros(4, 10))
    with table.backward(key):
        out.sum().backward()
    table.charge(key, times=5)
    other = FlopTable()
    other.load_state_dict(unpack(pack(table.state_dict())))
    assert other.charge(key) == (2400, 3200)
    assert (other.forward_flops, other.backward_flops) == (6 * 2400, 6 * 3200)


def test_samples_times_epochs_comes_out_exactly() -> None:
    n, epochs, net, table = 10, 3, mlp(), FlopTable()
    for _ in range(epochs):
        for start in range(0, n, 4):
            size = min(4, n - start)
            with table.forward(size):
                out = net(torch.zeros(size, 10))
            with table.backward(size):
                out.sum().backward()
            table.charge(size)
    assert table.forward_flops + table.backward_flops == n * epochs * (600 + 800)
