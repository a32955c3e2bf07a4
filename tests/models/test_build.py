import pytest
import torch
from torch import nn

from modicum.dataset import Dataset, Info
from modicum.errors import DataError, ModicumError
from modicum.models import ARCHITECTURES, ConvNet, Network, build, features
from modicum.models.build import choose

CLASSES = ("a", "b", "c")


def images(channels: int = 3, side: int = 32, width: int | None = None) -> Dataset:
    return Dataset(
        torch.rand(3, channels, side, width or side), torch.arange(3), info=Info(modality="image", classes=CLASSES)
    )


def table() -> Dataset:
    return Dataset(torch.rand(3, 5), torch.arange(3), info=Info(classes=CLASSES))


def text() -> Dataset:
    tokens = torch.tensor([[3, 4, 5, 0], [6, 0, 0, 0], [2, 2, 3, 4]])
    vocabulary = ("", "?", *"qwert")
    return Dataset(tokens, torch.arange(3), info=Info(modality="text", classes=CLASSES, vocabulary=vocabulary))


DATA = {"image": images, "tabular": table, "text": text}
EVERY = [(name, kind) for name, (_, kinds) in ARCHITECTURES.items() for kind in kinds]


@pytest.mark.parametrize("name, kind", EVERY)
def test_every_architecture_is_a_head_on_features(name: str, kind: str) -> None:
    data = DATA[kind]()
    model = build(name, data)
    assert isinstance(model, Network)
    assert isinstance(model.head, nn.Linear)
    model.eval()
    x = data.prepare(data.inputs)
    f = model.features(x)
    assert f.shape == (3, model.head.in_features)
    assert model(x).shape == (3, 3)
    torch.testing.assert_close(model.head(f), model(x), rtol=0, atol=0)
    assert not any(isinstance(m, nn.modules.dropout._DropoutNd) for m in model.modules())
    if name not in ("resnet9", "resnet18", "scatnet"):
        assert not list(model.buffers())


@pytest.mark.parametrize("name, kind", EVERY)
def test_weights_are_a_function_of_the_seed_alone(name: str, kind: str) -> None:
    data = DATA[kind]()
    before = torch.get_rng_state()
    first = build(name, data, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again, other = build(name, data, seed=3).state_dict(), build(name, data, seed=4).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_initialization_is_that_of_pytorch() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        plain = nn.Linear(5, 3)
    assert torch.equal(build("linear", table(), seed=5).head.weight, plain.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "data, name",
    [
        (images(1, 28), "convnet(width=32)"),
        (images(3, 64), "convnet(width=32)"),
        (images(1, 8), "mlp"),
        (images(3, 29), "resnet9(norm='instance')"),
        (table(), "mlp"),
        (text(), "bag"),
    ],
)
def test_auto(data: Dataset, name: str) -> None:
    assert choose(data) == name
    auto, named = build("auto", data, 1), build(name, data, 1)
    assert all(torch.equal(a, b) for a, b in zip(auto.parameters(), named.parameters(), strict=True))
    assert auto(data.prepare(data.inputs)).shape == (3, 3)


def test_one_output_for_a_regression() -> None:
    data = Dataset(torch.rand(3, 5), torch.rand(3), info=Info(task="regression"))
    assert build("mlp", data)(data.inputs).shape == (3, 1)


@pytest.mark.parametrize("name, kind", [e for e in EVERY if e[0] not in ("resnet9", "resnet18", "scatnet")])
def test_many_at_once_equal_one_after_another(name: str, kind: str) -> None:
    data = DATA[kind]()
    x = data.prepare(data.inputs)
    x = x.double() if x.is_floating_point() else x  # in single precision a rounding may switch a ReLU
    models = [build(name, data, seed).double() for seed in range(2)]
    parameters, _ = torch.func.stack_module_state(models)  # type: ignore[arg-type]
    shell = models[0]

    def loss(p: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = torch.func.functional_call(shell, (p, {}), (x,))
        return nn.functional.cross_entropy(logits, data.labels)

    gradients = torch.func.vmap(torch.func.grad(loss))(dict(parameters))
    for i, model in enumerate(models):
        nn.functional.cross_entropy(model(x), data.labels).backward()
        for key, p in model.named_parameters():
            torch.testing.assert_close(gradients[key][i], p.grad, rtol=1e-8, atol=1e-10)


def test_features_of_any_module_are_the_input_of_its_last_linear_layer() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 6), nn.Tanh())
    model = nn.Sequential(body, nn.Linear(6, 2))
    x = torch.rand(5, 3, 8, 8, requires_grad=True)
    torch.testing.assert_close(features(model, x), body(x), rtol=0, atol=0)
    assert not model[1]._forward_pre_hooks
    features(model, x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_features_of_a_network_equal_the_hook() -> None:
    model, x = ConvNet((1, 8, 8), 3, width=4), torch.rand(2, 1, 8, 8)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inside(x)  # type: ignore[no-any-return]

    torch.testing.assert_close(features(Wrapped(), x), model.features(x), rtol=0, atol=0)


def test_a_factory_is_called_under_the_seed() -> None:
    data = table()
    one, same = (build(lambda: nn.Linear(5, 3), data, 2) for _ in range(2))
    assert torch.equal(one.weight, same.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "model, data, message",
    [
        ("convnets", images(), "model 'convnets' is unknown; did you mean 'convnet'\\? expected auto, linear, mlp"),
        ("zzz", images(), "model 'zzz' is unknown; expected auto"),
        ("mlp(wide=3)", images(), "model 'mlp' has no option 'wide'; its options are hidden, layers"),
        ("linear(width=3)", table(), "model 'linear' has no option 'width'; its options are none"),
        ("auto(width=3)", table(), "auto has no options; it chooses mlp here"),
        ("mlp(hidden=0)", table(), "option hidden=0; expected an integer >= 1"),
        ("mlp(layers=1.5)", table(), "option layers=1.5; expected an integer >= 1"),
        ("convnet(depth=4)", images(1, 8), "not divisible by 16; choose depth=2, resize"),
        (
            "convnet",
            images(3, 31),
            "31 x 31 px is not divisible by 2; resize the images, or use mlp",
        ),
        ("convnet", table(), "model 'convnet' is for image data, but this data set is tabular; use linear, mlp"),
        ("mlp", text(), "model 'mlp' is for image and tabular data, but this data set is text; use bag, transformer"),
        ("transformer(width=10, heads=4)", text(), "heads=4 must divide width=10"),
        ("resnet18(norm='layer')", images(), "norm='layer'; expected 'batch' or 'instance'"),
        ("resnet18(norm='instance')", images(1, 8), "needs images of at least 9 px, got 8 x 8"),
        (3, images(), "model is a int; expected a name such as 'mlp' or a factory"),
        (lambda: 3, images(), "gave a int; expected an nn.Module"),
        (nn.ReLU(), images(), "model is a ReLU; expected a name such as 'mlp' or a factory"),
    ],
)
def test_errors(model: object, data: Dataset, message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        build(model, data)  # type: ignore[arg-type]


def test_errors_of_the_data() -> None:
    with pytest.raises(DataError, match="needs to know the number of classes"):
        build("mlp", Dataset(torch.rand(3, 5), torch.arange(3)))
    with pytest.raises(DataError, match=r"images must have shape \(n, channels, height, width\), got \(3, 5\)"):
        build("mlp", Dataset(torch.rand(3, 5), torch.arange(3), info=Info(modality="image", classes=CLASSES)))
    with pytest.raises(DataError, match=r"needs info\.vocabulary"):
        build("bag", Dataset(torch.ones(3, 5).long(), torch.arange(3), info=Info(modality="text", classes=CLASSES)))
    with pytest.raises(ModicumError, match=r"runs no nn\.Linear"):
        features(nn.ReLU(), torch.rand(2, 3))
