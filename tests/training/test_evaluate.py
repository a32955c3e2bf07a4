import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import DataError
from modicum.models import build, features
from modicum.training.evaluate import evaluate, forward


def table(n=37, classes=4, **info):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=draw)
    return Dataset(x, torch.randint(classes, (n,), generator=draw), info=Info(classes=tuple("abcd"[:classes]), **info))


def test_accuracy_and_loss_are_those_of_scikit_learn():
    data, ctx = table(), Context()
    model = build("mlp(hidden=8)", data)
    found = evaluate(model, data, ctx)
    probabilities = model(data.inputs).softmax(1).detach().double().numpy()
    answers = probabilities.argmax(1)
    assert found.metric == "accuracy"
    assert found.score == pytest.approx(accuracy_score(data.targets.numpy(), answers), abs=1e-12)
    expected = log_loss(data.targets.numpy(), probabilities / probabilities.sum(1, keepdims=True), labels=range(4))
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert found.correct.tolist() == (answers == data.targets.numpy()).tolist()


@pytest.mark.parametrize("shape", [(37,), (37, 1)])
def test_regression_is_r2_and_mean_squared_error(shape):
    data = table()
    targets = data.inputs @ torch.arange(6.0) + 1
    data = Dataset(data.inputs, targets.reshape(shape), info=Info("regression"))
    model = build("linear", data)
    found = evaluate(model, data, Context())
    predictions = model(data.inputs)[:, 0].detach().numpy()
    assert found.metric == "R²"
    assert found.correct is None
    assert found.score == pytest.approx(r2_score(targets.numpy(), predictions), rel=1e-5)
    assert found.loss == pytest.approx(mean_squared_error(targets.numpy(), predictions), rel=1e-5)


def test_soft_labels_count_as_right_where_their_largest_is():
    data = table()
    soft = (torch.nn.functional.one_hot(data.targets, 4) * 0.6 + 0.1).double()
    model = build("linear", data)
    hard, found = evaluate(model, data, Context()), evaluate(model, data.replace(targets=soft), Context())
    assert found.score == hard.score
    log = model(data.inputs).log_softmax(1).detach().double()
    assert found.loss == pytest.approx(float(-(soft * log).sum(1).mean()), rel=1e-5)


def test_inputs_are_standardized_as_the_data_say():
    pixels = torch.randint(256, (9, 2, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    info = Info(modality="image", classes=("a", "b"), mean=(100.0, 50.0), std=(10.0, 20.0))
    data = Dataset(pixels, torch.zeros(9, dtype=torch.int64), info=info)
    model = build("linear", data)
    x = (pixels.float() - torch.tensor([100.0, 50.0])[:, None, None]) / torch.tensor([10.0, 20.0])[:, None, None]
    torch.testing.assert_close(forward(model, data, Context()), model(x).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model, flops", [("linear", 2 * 6 * 4), ("mlp(hidden=8)", 2 * (6 * 8 + 8 * 8 + 8 * 4))])
@pytest.mark.parametrize("size", [1, 10, 512])
def test_a_forward_pass_is_charged_exactly(model, flops, size):
    data, ctx = table(), Context()
    forward(build(model, data), data, ctx, phase="choose", what="look", batch_size=size)
    (charge,) = ctx.ledger.charges
    assert (charge.phase, charge.what, charge.samples) == ("choose", "look", 37)
    assert (charge.forward_flops, charge.backward_flops, charge.labels) == (37 * flops, 0, 0)


def test_evaluation_is_booked_as_evaluation():
    data, ctx = table(), Context()
    evaluate(build("linear", data), data, ctx)
    assert [(c.phase, c.what) for c in ctx.ledger.charges] == [("evaluate", "evaluate")]


@pytest.mark.parametrize("name", ["mlp(hidden=8)", "dropout"])
def test_the_batch_size_does_not_change_the_outputs(name):
    data = table()
    network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 4))
    model = network if name == "dropout" else build(name, data)
    whole = forward(model, data, Context(), batch_size=512)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    for size in (1, 7, 36, 37):
        torch.testing.assert_close(forward(model, data, Context(), batch_size=size), whole, rtol=1e-6, atol=1e-6)


def test_the_mode_of_every_module_is_restored():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.Dropout(), torch.nn.Linear(6, 4))
    model.train()
    model[0].eval()  # a frozen part
    before = [module.training for module in model.modules()]
    statistics = model[0].running_mean.clone()
    forward(model, table(), Context())
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model[0].running_mean, statistics)

    def fails(module, x):
        assert not module.training
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        forward(model, table(), Context(), function=fails)
    assert [module.training for module in model.modules()] == before
    model.eval()
    forward(model, table(), Context())
    assert not any(module.training for module in model.modules())


def test_another_function_of_the_model():
    data = table()
    model = build("mlp(hidden=8)", data)
    out = forward(model, data, Context(), function=features, batch_size=10)
    torch.testing.assert_close(out, model.features(data.inputs).detach())


def test_half_precision_inputs_and_wide_ones_are_evaluated_alike():
    data = table()
    model = build("linear", data)
    expected = evaluate(model, data, Context())
    wide = data.replace(inputs=data.inputs.double(), targets=data.targets.to(torch.int32))
    found = evaluate(model, wide, Context())
    assert (found.score, found.loss) == (expected.score, expected.loss)
    half = forward(model, data.replace(inputs=data.inputs.half()), Context())
    torch.testing.assert_close(half, forward(model, data, Context()), rtol=0, atol=1e-2)


def test_errors_say_what_is_missing():
    data = table()
    model = build("linear", data)
    with pytest.raises(DataError, match="dataset has no targets to score a model against; use forward for its outputs"):
        evaluate(model, data.replace(targets=None), Context())
    with pytest.raises(DataError, match="dataset has 0 samples; a forward pass needs at least one"):
        evaluate(model, data[np.zeros(37, bool)], Context())
