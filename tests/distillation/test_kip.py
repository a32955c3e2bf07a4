from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import DM, KIP, fc_ntk, kernel_answers, kip_loss, label_solve
from modicum.distillation.kip import _Run
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.scores import Budget
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

RECIPE, BUDGET = Recipe(model="mlp(hidden=8, layers=1)"), Budget(per_class=2)
FAST = KIP(iterations=3, targets=30)


def table(n: int = 60, shape: tuple[int, ...] = (5,)) -> Splits:
    """Three clusters, not in order."""
    draw = np.random.default_rng(0)
    targets = draw.permutation(np.arange(n) % 3)
    centers = draw.normal(size=(3, *shape)) * 2
    inputs = torch.from_numpy((draw.normal(size=(n, *shape)) + centers[targets]).astype(np.float32))
    info = Info(classes=("a", "b", "c"), modality="tabular" if len(shape) == 1 else "image")
    train = Dataset(inputs, torch.from_numpy(targets), info=info)
    return Splits(train, train[:9], train[:9])


def run_of(method: KIP, data: Splits) -> _Run:
    run = _Run(method, data.train, BUDGET, RECIPE, Context())
    run.learned["inputs"] = run.start("real").double()
    return run


@pytest.mark.parametrize("block", [1 << 20, 40])
def test_the_gradient_of_blocks_is_that_of_the_loss(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modicum.distillation.kip.BLOCK", block)
    data = table()
    run = run_of(FAST, data)
    batch = run.targets(0)
    loss, right, slopes = run.gradient(batch)
    x, y = run.inputs.clone().requires_grad_(), run.own.clone().requires_grad_()
    seen = run.real(batch).double()
    expected = kip_loss(fc_ntk(x, x), fc_ntk(seen, x), y, run.truth[batch], 1e-6)
    slope_x, slope_y = torch.autograd.grad(expected, (x, y))
    assert loss == pytest.approx(float(expected.detach()), rel=1e-10)
    torch.testing.assert_close(slopes["inputs"], slope_x, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(slopes["labels"], slope_y, rtol=1e-8, atol=1e-12)
    assert 0 < right <= 1


def test_batches_are_balanced_and_all_are_taken_where_there_are_no_more() -> None:
    run = run_of(FAST, table())
    assert torch.bincount(run.real_labels[run.targets(0)]).tolist() == [10, 10, 10]
    assert not torch.equal(run.targets(0).sort().values, run.targets(1).sort().values)
    assert len(run_of(replace(FAST, targets=60), table()).targets(0)) == 60


def test_the_loss_falls() -> None:
    made = KIP(iterations=30).distill(table(), BUDGET, RECIPE, Context())
    assert made.history["loss"][-1] < 0.5 * made.history["loss"][0]
    assert made.history["accuracy"][-1] >= made.history["accuracy"][0]


def test_label_solve_keeps_real_samples_and_takes_the_best_labels() -> None:
    data, method = table(), KIP(images="fixed", labels="solved")
    made = method.distill(data, BUDGET, RECIPE, Context())
    distance = torch.cdist(made.dataset.inputs, data.train.inputs, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distance.min(1).values.max()) < 1e-5
    assert len(made.history["loss"]) == 1
    x, t = made.dataset.inputs.double(), data.train.inputs.double()
    y = torch.nn.functional.one_hot(data.train.labels, 3).double() - 1 / 3
    expected = label_solve(fc_ntk(x, x), fc_ntk(t, x), y)
    torch.testing.assert_close(made.dataset.targets, expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("labels", ["learned", "solved"])
def test_labels_may_be_made_too(labels: Any) -> None:
    fixed = KIP(iterations=20).distill(table(), BUDGET, RECIPE, Context())
    made = KIP(iterations=20, labels=labels).distill(table(), BUDGET, RECIPE, Context())
    assert made.dataset.targets is not None
    assert made.dataset.targets.shape == (6, 3)
    assert made.dataset.targets.dtype == torch.float32
    assert made.history["loss"][-1] < fixed.history["loss"][-1]
    assert made.snapshots[-1].dataset.targets is not None
    assert torch.equal(made.snapshots[-1].dataset.targets, made.dataset.targets)
    assert not torch.equal(made.snapshots[0].dataset.targets, made.dataset.targets)  # type: ignore[arg-type]


def test_labels_alone() -> None:
    made = KIP(iterations=5, images="fixed", labels="learned").distill(table(), BUDGET, RECIPE, Context())
    start = KIP(iterations=1, lr_img=1e-30).distill(table(), BUDGET, RECIPE, Context())
    assert torch.equal(made.dataset.inputs, start.dataset.inputs)
    assert made.history["loss"][-1] < made.history["loss"][0]


def test_the_answers_of_the_kernel() -> None:
    data, method = table(), KIP(iterations=30)
    made = method.distill(data, BUDGET, RECIPE, Context())
    answers = kernel_answers(made, data.train)
    x, t = made.dataset.inputs.double(), data.train.inputs.double()
    y = torch.eye(3, dtype=torch.float64)[made.dataset.labels] - 1 / 3
    kernel = fc_ntk(x, x)
    expected = fc_ntk(t, x) @ torch.linalg.solve(kernel + 1e-6 * kernel.trace() / 6 * torch.eye(6), y)
    torch.testing.assert_close(answers, expected, rtol=1e-6, atol=1e-8)
    assert float((answers.argmax(1) == data.train.labels).float().mean()) > 0.85


@pytest.mark.parametrize(
    "kernel", ["fc_ntk(depth=2)", "conv_ntk(depth=1)", "conv_ntk(depth=2, pool=False)", "rbf", "laplace"]
)
def test_kernels(kernel: str) -> None:
    method = KIP(iterations=10, kernel=kernel, targets=30)
    data = table(shape=(1, 4, 4))
    made = method.distill(data, BUDGET, Recipe(model="convnet(width=4, depth=1)"), Context())
    assert made.history["loss"][-1] < made.history["loss"][0]
    assert made.recipe.model == {"c": "convnet(width=4, depth=1)", "f": "mlp(hidden=1024, layers=2)"}.get(
        kernel[0], "mlp(hidden=1024, layers=1)"
    )


def test_a_finite_network_learns_from_the_set() -> None:
    data = table()
    made = KIP(iterations=30).distill(data, BUDGET, RECIPE, Context())
    assert made.recipe.loss == "mse"
    done = fit(made.dataset, replace(made.recipe, model="mlp(hidden=256, layers=1)", steps=100), Context())
    assert done.evaluate(data.train).score > 0.85


def test_single_precision_is_near() -> None:
    one, two = (
        replace(FAST, reg=1e-3, precision=p).distill(table(), BUDGET, RECIPE, Context()) for p in ("float64", "float32")
    )
    torch.testing.assert_close(one.dataset.inputs, two.dataset.inputs, rtol=1e-3, atol=1e-3)


def test_the_ledger() -> None:
    ctx = Context()
    FAST.distill(table(), BUDGET, RECIPE, ctx)
    total = ctx.ledger.total("choose")
    assert total.samples == 3 * (30 + 6)
    assert total.labels == 60
    assert total.uncounted == ()
    # of 30 targets and the support itself: inner products of 5 numbers; answers of 3 classes
    assert total.forward_flops == 3 * (2 * 5 * 6 * (30 + 6) + 2 * 30 * 6 * 3)
    assert total.extra_flops == 3 * (6**3 + 8 * 6 * 6 * 3)


def test_equal_samples_say_so() -> None:
    data = table()
    same = data._replace(train=data.train.replace(inputs=torch.ones(60, 5)))
    with pytest.raises(TrainingError, match="support samples are equal or not finite: use a larger reg"):
        replace(FAST, reg=0.0).distill(same, BUDGET, RECIPE, Context())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"iterations": 0}, "'kip' option iterations=0; expected an integer > 0"),
        ({"reg": -1.0}, "'kip' option reg=-1.0; expected a number >= 0"),
        ({"labels": "hard"}, "'kip' option labels='hard'; expected 'fixed', 'learned', 'solved'"),
        ({"kernel": "ntk"}, "kernel 'ntk' is unknown"),
        ({"precision": "float32", "reg": 1e-9}, "kip reg=1e-09 with precision='float32'; expected reg >= 1e-8"),
        ({"images": "fixed"}, "images='fixed' and labels='fixed' leave nothing to learn"),
    ],
)
def test_errors_of_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        KIP(**options)


def test_errors_of_answers() -> None:
    data = table()
    other = DM(iterations=1).distill(data, BUDGET, RECIPE, Context())
    with pytest.raises(ModicumError, match=r"made is by 'dm\(iterations=1\)'; expected a set made by kip"):
        kernel_answers(other, data.train)
    made = FAST.distill(data, BUDGET, RECIPE, Context())
    with pytest.raises(DataError, match=r"data has inputs of \(4,\); expected \(5,\)"):
        kernel_answers(made, data.train.replace(inputs=data.train.inputs[:, :4]))
