import numpy as np
import pytest
import torch

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.ledger import Ledger
from modicum.measurement import Gradients, checkpoints, gradients
from modicum.measurement.checkpoints import moments_of, rates_of
from modicum.measurement.per_sample import log_odds, per_sample_gradients
from modicum.measurement.projection import project
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=6, layers=1)", epochs=4, batch_size=8, lr=0.05)


def splits(n=50, m=11, order=None, classes=3, nan=False):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(n + m, 4, generator=draw), torch.randint(classes, (n + m,), generator=draw)
    ids = np.random.default_rng(0).permutation(500)[:n]
    info = Info(classes=tuple("abc"))
    train = Dataset(x[:n], y[:n], ids=ids, info=info)
    valid = Dataset(x[n:] if not nan else x[n:] * torch.nan, y[n:], info=info)
    return Splits(train if order is None else train[order], valid, valid)


def table(measurement=None, data=None, recipe=RECIPE, ctx=None):
    return (measurement or Gradients((0.5, 1.0))).measure(data or splits(), recipe, ctx or Context())


def test_the_models_are_those_of_fit():
    data = splits()
    train = data.train[np.argsort(data.train.ids)]
    found = table(data=data)
    end, half = fit(train, RECIPE).model, fit(train, RECIPE, stop_after=2).model
    for checkpoint, expected in ((-1, end), (1, end), (0, half)):
        model = found.model(0, checkpoint)
        assert not model.training
        for ours, theirs in zip(model.parameters(), expected.parameters()):
            assert torch.equal(ours, theirs)


def test_runs_on_subsets_are_those_of_fit():
    data = splits()
    found = table(Gradients(runs=3, share=0.5), data)
    assert found.masks.sum(1).tolist() == [25, 25, 25]
    assert not torch.equal(found.masks[0], found.masks[1])
    train = data.train[np.argsort(data.train.ids)]
    for run in range(3):
        alone = fit(train[found.masks[run]], RECIPE, Context(seed=1_000_003 * run)).model
        for ours, theirs in zip(found.model(run).parameters(), alone.parameters()):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_one_after_another_and_together_are_the_same(monkeypatch):
    together = table(Gradients(runs=2, share=0.5))
    monkeypatch.setattr(checkpoints, "stackable", lambda model: False)
    alone = table(Gradients(runs=2, share=0.5))
    for name, weights in together.weights.items():
        torch.testing.assert_close(weights, alone.weights[name], rtol=1e-4, atol=1e-5)
    assert torch.equal(together.masks, alone.masks)


def test_batch_normalization_is_trained_one_after_another():
    x = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = Dataset(x, torch.arange(20) % 2, info=Info(modality="image", classes=("a", "b")))
    recipe = Recipe(model="resnet9(width=2)", epochs=1, batch_size=10, lr=0.01)
    found = table(Gradients(runs=2), Splits(data, data, data), recipe)
    assert found.weights["body.0.1.running_mean"].shape == (2, 1, 2)
    assert found.norms("train", 1).shape == (20,)


def test_another_order_of_the_samples_changes_no_bit():
    order = np.random.default_rng(1).permutation(50)
    a, b = table(Gradients(runs=2, share=0.5)), table(Gradients(runs=2, share=0.5), splits(order=order))
    assert all(torch.equal(w, b.weights[name]) for name, w in a.weights.items())
    assert a.train.ids.tolist() == b.train.ids.tolist() == sorted(a.train.ids.tolist())
    assert torch.equal(a.gradients("train"), b.gradients("train"))
    data = splits(order=order)
    assert data.train.ids[b.positions(data.train)].tolist() == b.train.ids.tolist()


def test_every_form_is_that_of_the_model():
    found = table()
    for part in ("train", "valid"):
        dataset = found.dataset(part)
        model, x, y = found.model(0, 0), dataset.inputs, dataset.targets
        for function in (None, log_odds):
            options = {} if function is None else {"function": function}
            whole = per_sample_gradients(model, x, y, **options)
            close = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(found.gradients(part, 0, 0, **options), whole, **close)
            torch.testing.assert_close(found.norms(part, 0, 0, **options), whole.norm(dim=1), **close)
            torch.testing.assert_close(found.mean(part, 0, 0, **options), whole.mean(0), **close)
            torch.testing.assert_close(found.products(part, whole[0], 0, 0, **options), whole @ whole[0], **close)
            errors, features = found.factors(part, 0, 0, **options)
            last = (errors[:, :, None] * features[:, None]).flatten(1)
            torch.testing.assert_close(found.gradients(part, 0, 0, layers="last", **options), last, **close)
            short = found.gradients(part, 0, 0, dimensions=16, kind="rademacher", seed=3, **options)
            torch.testing.assert_close(short, project(whole, 16, "rademacher", 3), **close)
        torch.testing.assert_close(
            found.values(part, 0, 0), torch.nn.functional.cross_entropy(model(x), y, reduction="none")
        )


def test_blocks_cover_the_samples_in_order(monkeypatch):
    found = table()
    whole = found.gradients("train")
    monkeypatch.setattr(gradients, "ROWS", 7)
    parts = list(found.blocks("train"))
    assert [part.start for part, _ in parts] == [0, 7, 14, 21, 28, 35, 42, 49]
    torch.testing.assert_close(torch.cat([rows for _, rows in parts]), whole)
    torch.testing.assert_close(found.mean("train"), whole.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.norms("train"), whole.norm(dim=1))


def test_cached_and_charged_in_full(tmp_path):
    first, second = (Context(ledger=Ledger(), cache=tmp_path) for _ in range(2))
    a, b = table(ctx=first), table(ctx=second)
    assert all(torch.equal(w, b.weights[name]) for name, w in a.weights.items())
    assert first.ledger.charges == second.ledger.charges
    assert first.ledger.total("choose").samples == 200
    rows = [found.projected(ctx, "train", dimensions=8) for found, ctx in ((a, first), (b, second))]
    assert torch.equal(*rows)
    assert torch.equal(rows[0], a.gradients("train", dimensions=8))
    assert len(second.ledger.charges) == 2
    assert first.ledger.charges == second.ledger.charges
    assert not torch.equal(rows[0], a.projected(first, "train", dimensions=8, seed=1))


def test_seeds_and_shares_are_not_confused(tmp_path):
    ctx = Context(cache=tmp_path)
    kinds = [Gradients(), Gradients((0.5,)), Gradients(share=0.5), Gradients(runs=2)]
    weights = [table(kind, ctx=ctx).weights["head.weight"][0, 0] for kind in kinds]
    weights.append(table(Gradients(), ctx=Context(cache=tmp_path, seed=1)).weights["head.weight"][0, 0])
    different = [not torch.allclose(weights[0], other, rtol=1e-4) for other in weights[1:]]
    assert different == [True, True, False, True]  # the first of two runs is the only run


@pytest.mark.parametrize(
    "recipe, shares, expected",
    [
        (Recipe(epochs=4, batch_size=10), (0.25, 0.5, 0.75, 1.0), [10, 20, 30, 40]),
        (Recipe(epochs=2, batch_size=10), tuple(k / 9 for k in range(1, 10)), [10, 20]),
        (Recipe(epochs=2.5, batch_size=10), (0.1, 0.9, 1.0), [10, 20, 25]),
        (Recipe(steps=7, batch_size=10), (0.5, 1.0), [7]),
        (Recipe(epochs=3, batch_size=1000), (0.3, 1.0), [1, 3]),
    ],
)
def test_moments(recipe, shares, expected):
    assert moments_of(recipe, 100, shares) == expected


def test_moments_of_a_run_whose_last_epoch_is_not_whole():
    found = table(Gradients((0.5, 1.0)), recipe=Recipe(model="linear", epochs=2.5, batch_size=10))
    assert found.checkpoints == 2
    assert not torch.equal(found.weights["head.weight"][0, 0], found.weights["head.weight"][0, 1])


def test_rates_are_the_mean_over_the_steps():
    constant = Recipe(epochs=4, batch_size=10, lr=0.3, schedule="constant")
    torch.testing.assert_close(rates_of(constant, 100, [10, 40]), torch.full((2,), 0.3, dtype=torch.float64))
    cosine = Recipe(epochs=4, batch_size=10, lr=0.3)
    rates = rates_of(cosine, 100, [10, 20, 30, 40])
    assert rates.tolist() == sorted(rates.tolist(), reverse=True)
    assert float(rates.mean()) == pytest.approx(0.15, rel=0.05)
    seen = table(Gradients((0.25, 1.0))).rates
    history = fit(splits().train, RECIPE).history["lr"]
    assert history[0] < float(seen[0]) < RECIPE.lr


def test_regression():
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    data = Dataset(x, x.sum(1), info=Info("regression", target_std=2.0))
    found = table(Gradients(), Splits(data, data, data), Recipe(model="linear", epochs=2, batch_size=10, lr=0.01))
    model = found.model()
    expected = (model(x)[:, 0] - x.sum(1) / 2).square()
    torch.testing.assert_close(found.values("train"), expected.detach())


def test_trainings():
    assert Gradients((0.1, 0.5), runs=4, share=0.5).trainings() == 1.0


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: Gradients(()), ModicumError, r"checkpoints=\(\); expected at least one share"),
        (lambda: Gradients((0.0,)), ModicumError, r"checkpoints=\(0.0,\)"),
        (lambda: Gradients(runs=0), ModicumError, "runs=0; expected an integer >= 1"),
        (lambda: Gradients(share=1.5), ModicumError, "share=1.5"),
        (lambda: table().model(1), ModicumError, r"run=1; expected one of 0\.\.0"),
        (lambda: table().model(0, 2), ModicumError, r"checkpoint=2; expected one of 0\.\.1"),
        (lambda: table().dataset("test"), ModicumError, "part='test'"),
        (lambda: table().positions(splits().train[:10]), DataError, "of 50 samples with other ids"),
        (lambda: table(data=splits(nan=True)).norms("valid"), TrainingError, "gradient of sample 0 is not finite"),
        (lambda: table(data=splits(nan=True)).gradients("valid"), TrainingError, "gradient of sample 0 is not finite"),
        (lambda: table(data=splits(nan=True)).mean("valid"), TrainingError, "mean gradient of the valid samples"),
    ],
)
def test_errors_name_what_is_wrong(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_text():
    info = Info(modality="text", classes=("a", "b"), vocabulary=("", "?", *map(str, range(8))))
    tokens = torch.randint(10, (20, 5), generator=torch.Generator().manual_seed(0))
    data = Dataset(tokens, torch.arange(20) % 2, info=info)
    found = table(
        Gradients(), Splits(data, data, data), Recipe(model="transformer(width=8)", epochs=1, batch_size=5, lr=0.01)
    )
    torch.testing.assert_close(found.norms("train"), found.gradients("train").norm(dim=1))


def test_it_is_a_measurement():
    assert hash(Gradients()) == hash(Gradients())
    assert modicum.measurement.Gradients is Gradients
