"""Transport: exact maps are found, affine maps of the source do not matter, independent features explain nothing."""

import pytest
import torch

from modicum.analysis import transport
from modicum.errors import DataError, ModicumError


def rows(n=300, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(b):
    return (b[:, 0] + 0.5 * b[:, 1] > 0).long()


def test_a_linear_map_is_found():
    a = rows()
    b = a @ rows(6, 4, 1) + 3
    found = transport(a, b, labels_of(b), alpha=0.0)
    assert found.r2 == pytest.approx(1, abs=1e-9)
    assert found.cosine == pytest.approx(1, abs=1e-9)
    assert found.relative == 1
    assert found.accuracy == found.transported > 0.9


def test_an_invertible_map_of_the_source_changes_nothing():
    a, b = rows(), rows(seed=1) + rows() ** 2
    q = rows(6, 6, 2)
    first, second = (transport(x, b, labels_of(b), alpha=0.0) for x in (a, a @ q - 7))
    assert first.r2 == pytest.approx(second.r2, abs=1e-9)
    assert first.cosine == pytest.approx(second.cosine, abs=1e-9)
    assert first.transported == second.transported


def test_independent_features_explain_nothing():
    for alpha in (0.0, 1e-3, None):
        assert transport(rows(), rows(seed=1), alpha=alpha).r2 <= 0


def test_it_has_a_direction():
    a = rows()
    b = a[:, :2]
    assert transport(a, b, alpha=0.0).r2 == pytest.approx(1)
    assert transport(b, a, alpha=0.0).r2 < 0.5


def test_ridge_equals_scikit_learn():
    from sklearn.linear_model import Ridge

    from modicum.context import generator

    a, b = rows(), rows(seed=1) + rows() @ rows(6, 6, 3)
    order = torch.randperm(300, generator=generator(0, "transport"))
    first, second = order[:150], order[150:]
    x, y = ((f - f[first].mean(0)) / f[first].std(0, correction=0) for f in (a, b))
    predicted = torch.from_numpy(Ridge(alpha=0.1 * 150, fit_intercept=False).fit(x[first], y[first]).predict(x[second]))
    true = y[second]
    expected = 1 - float((true - predicted).square().sum() / (true - true.mean(0)).square().sum())
    assert transport(a, b, alpha=0.1).r2 == pytest.approx(expected, abs=1e-9)


def test_cross_validation_shrinks_what_is_noise():
    a = rows(60, 25)
    b = a[:, :1] + 3 * rows(60, 1, seed=4)
    chosen = transport(a, b, alpha=None)
    assert chosen.alpha > 1e-3
    assert chosen.r2 > transport(a, b, alpha=1e-7).r2


def test_a_classifier_of_its_own():
    a = rows()
    b = a @ rows(6, 4, 1) + 3
    found = transport(a, b, labels_of(b), classifier=lambda f: torch.stack([-f[:, 0], f[:, 0]], 1), alpha=0.0)
    assert found.accuracy == found.transported
    assert transport(a, b).accuracy is None
    assert transport(a, b).relative is None


def test_columns_that_never_vary_are_left_out():
    a = rows()
    b = a @ rows(6, 4, 1)
    more = torch.cat([a, torch.full((300, 2), 5.0, dtype=a.dtype)], 1)
    assert transport(more, b, alpha=1e-3).r2 == pytest.approx(transport(a, b, alpha=1e-3).r2)


def test_trained_networks_are_closer_to_each_other_than_to_untrained_ones():
    import modicum
    from modicum.context import Context
    from modicum.models import build, features
    from modicum.training.evaluate import forward
    from modicum.training.fit import fit
    from modicum.training.recipe import Recipe

    data = modicum.load("digits").train

    def seen(model):
        return forward(model, data, Context(), function=features)

    a, b = (fit(data, Recipe(f"mlp(hidden={w}, layers=2)", epochs=10), Context(seed=w)).model for w in (24, 32))
    raw = build("mlp(hidden=24, layers=2)", data, seed=24)
    trained, untrained = transport(seen(a), seen(b)).r2, transport(seen(raw), seen(b)).r2
    assert trained > untrained + 0.02


def broken():
    a = rows()
    a[4, 1] = torch.nan
    return a


@pytest.mark.parametrize(
    "source, target, options, text",
    [
        (rows(), rows(200), {}, "source has 300 rows and target 200"),
        (rows(10, 6), rows(10), {"alpha": 0.0}, "alpha=0 with 5 samples to fit 6 columns of the source"),
        (torch.ones(20, 3), rows(20), {}, "source features are constant"),
        (rows(), torch.ones(300, 2), {}, "target features are constant"),
        (broken(), rows(), {}, "source features of row 4 are not finite"),
        (rows()[:, 0], rows(), {}, r"source features are torch.float64 of shape \(300,\)"),
        (rows(3), rows(3), {}, "there are 3 samples; expected at least 4"),
        (rows(), rows(), {"alpha": -1.0}, "alpha=-1.0; expected a number >= 0, or None"),
        (rows(), rows(), {"labels": torch.zeros(5, dtype=torch.int64)}, r"labels are torch.int64 of shape \(5,\)"),
        (rows(), rows(), {"classifier": lambda f: f}, "a classifier is given without labels"),
    ],
)
def test_errors_name_the_argument(source, target, options, text):
    with pytest.raises((DataError, ModicumError), match=text):
        transport(source, target, **options)
