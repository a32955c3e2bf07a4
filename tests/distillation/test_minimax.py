import pytest
import torch

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import Denoiser, Minimax, ddim, minimax_losses, noised, signal
from modicum.distillation.minimax import Memories
from modicum.errors import ModicumError
from modicum.scores import Budget
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="convnet(width=4)")
FAST = Minimax(iterations=4, batch_size=8, memory=4, width=4, steps=3)


def pictures(classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Splits:
    x = torch.randint(0, 256, (60, 1, 8, 8), generator=generator(0, "x")).to(torch.uint8)
    info = Info(modality="image", classes=classes, mean=(127.0,), std=(70.0,))
    train = Dataset(x, torch.arange(60) % 3, info=info)
    return Splits(train, train[:6], train[:6])


def test_losses_equal_a_loop() -> None:
    g = generator(0)
    z, real, made = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((6, 5), (6, 4, 5), (6, 3, 5)))
    real_there, made_there = torch.rand(6, 4, generator=g) < 0.7, torch.rand(6, 3, generator=g) < 0.7
    real_there[0] = False  # nothing there yet
    cos = torch.nn.functional.cosine_similarity
    least = [min((float(cos(z[i], m, 0)) for m in real[i][real_there[i]]), default=0.0) for i in range(6)]
    most = [max((float(cos(z[i], m, 0)) for m in made[i][made_there[i]]), default=0.0) for i in range(6)]
    represent, diverse = minimax_losses(z, real, real_there, made, made_there)
    assert float(represent) == pytest.approx(-sum(least) / 6)
    assert float(diverse) == pytest.approx(sum(most) / 6)


def test_empty_memories_have_no_gradient() -> None:
    z = torch.randn(3, 5, requires_grad=True)
    nothing = torch.zeros(3, 2, dtype=torch.bool)
    loss = sum(minimax_losses(z, torch.zeros(3, 2, 5), nothing, torch.zeros(3, 2, 5), nothing))
    (slope,) = torch.autograd.grad(loss, z)  # type: ignore[arg-type]
    assert bool((slope == 0).all())


def test_memories_keep_the_last_of_each_class() -> None:
    memory, plain = Memories(2, 3, 1), [[], []]  # type: ignore[var-annotated]
    for k in range(6):
        labels = torch.randint(2, (1 + 2 * k,), generator=generator(0, k))
        rows = torch.arange(len(labels))[:, None] + 100.0 * k
        memory.add(0, labels, rows)
        for y, row in zip(labels.tolist(), rows, strict=True):
            plain[y] = [*plain[y], float(row)][-3:]
    rows, there = memory.read(0, torch.tensor([0, 1]))
    for c in (0, 1):
        assert sorted(rows[c, there[c], 0].tolist()) == plain[c]
    assert not bool(memory.read(1, torch.tensor([0]))[1].any())


def test_image_and_noise_come_back_from_the_velocity() -> None:
    x, e = (torch.randn(5, 1, 4, 4, dtype=torch.float64) for _ in range(2))
    time = torch.rand(5, dtype=torch.float64)
    seen, v = noised(x, e, time)
    alpha, sigma = (k[:, None, None, None] for k in signal(time))
    torch.testing.assert_close(alpha * seen - sigma * v, x)
    torch.testing.assert_close(sigma * seen + alpha * v, e)


def test_sampling_of_a_normal_distribution_is_exact_in_the_limit() -> None:
    """Data N(0, s^2): the best velocity is known, and the deterministic flow scales the noise by s."""
    s = 0.5

    def velocity(x: torch.Tensor, time: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (k[:, None, None, None] for k in signal(time))
        total = alpha**2 * s**2 + sigma**2
        clean, noise = alpha * s**2 * x / total, sigma * x / total
        return alpha * noise - sigma * clean

    e = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    errors = [float((ddim(velocity, e, torch.zeros(3), steps=n) - s * e).abs().max()) for n in (100, 1000)]
    assert errors[1] < 0.01
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (1, 7, 9)])
def test_any_size(shape: tuple[int, ...]) -> None:
    network = Denoiser(shape, 3, width=4)
    out = network(torch.rand(2, *shape), torch.rand(2), torch.tensor([0, 3]))
    assert out.shape == (2, *shape)


def test_what_comes_out() -> None:
    made = FAST.distill(pictures(), Budget(per_class=2), RECIPE, Context())
    assert made.dataset.inputs.shape == (6, 1, 8, 8)
    assert made.history.keys() == {"iteration", "loss", "represent", "diverse"}
    assert made.history["represent"][:3] == [0.0, 0.0, 0.0]  # tuned in the last fifth alone
    assert float(made.dataset.inputs.min()) >= -1e-3
    assert float(made.dataset.inputs.max()) <= 255.001
    assert made.teacher is None


def test_it_learns() -> None:
    method = Minimax(iterations=60, batch_size=32, memory=4, width=8, steps=4, ema=0.9, lr=3e-3)
    data = pictures()
    train = data.train.replace(
        inputs=data.train.inputs // 8 + (80 * data.train.labels[:, None, None, None]).to(torch.uint8)
    )
    made = method.distill(data._replace(train=train), Budget(per_class=4), RECIPE, Context())
    means = made.dataset.inputs.mean((1, 2, 3)).reshape(3, 4).mean(1)
    assert float(means[0]) < float(means[1]) < float(means[2])
    assert sum(made.history["loss"][-10:]) < 0.7 * sum(made.history["loss"][:10])


def test_options() -> None:
    with pytest.raises(ModicumError, match="'minimax' option guidance=0"):
        Minimax(guidance=0)
    with pytest.raises(ModicumError, match="denoiser width=6; expected a multiple of 4"):
        Minimax(width=6).distill(pictures(), Budget(per_class=1), RECIPE, Context())
