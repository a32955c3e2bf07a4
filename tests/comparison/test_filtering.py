"""What a filter keeps and what it says about it."""

import numpy as np
import pytest
import torch

from modicum.comparison.filtering import decide
from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import DataError, ModicumError
from modicum.scores import Budget

N = 600
QUICK = {"classifier": "logistic"}


def made(seed=0, order=None):
    rows = torch.randn(N, 4, generator=torch.Generator().manual_seed(seed))
    good = (rows[:, 0] > -0.4).long().numpy()
    asked = np.random.default_rng(seed).permutation(N)[:200]
    data = Dataset(rows, ids=np.arange(N) + 1000, info=Info("unlabeled"))
    if order is not None:
        place = np.argsort(order)
        return data[order], rows[order], good[order], place[asked]
    return data, rows, good, asked


def decided(order=None, **options):
    data, rows, good, asked = made(order=order)
    return decide(data, {"inputs": [rows]}, asked, good[asked], Context(), **{**QUICK, **options}), good


def test_a_number_of_samples_is_kept_to_the_one():
    for keep in (0.25, 100, 1.0):
        found, good = decided(budget=Budget(keep=keep))
        assert len(found.dataset) == Budget(keep=keep).count(N)
        assert np.array_equal(found.dataset.ids, found.selection.positions + 1000)
    found, good = decided(budget=Budget(0.5))
    assert good[found.selection.positions].mean() > 0.95
    assert found.cut.low <= 1.0 <= found.cut.high or found.cut.precision < 1
    bad = np.flatnonzero(found.judged == 0)
    assert not np.isin(bad, found.selection.positions).any()
    assert set(found.selection.reasons[bad]) == {"judged bad"}
    assert "300 of 600 samples are kept; about" in found.sentence


def test_a_precision_is_reached_and_said():
    found, good = decided(precision=0.85)
    assert good[found.selection.positions].mean() >= 0.85
    assert found.cut.low >= 0.85
    assert np.isin(np.flatnonzero(found.judged == 1), found.selection.positions).all()
    assert "with 95 % confidence at least 85 % of them are good." in found.sentence
    assert "100 samples were judged" not in found.detail
    assert "200 samples were judged" in found.detail


def test_what_is_measured_was_not_learned_from():
    found, _ = decided(budget=Budget(0.5))
    assert found.held_out.sum() == 100
    assert not np.isnan(found.judged[found.held_out]).any()
    assert sum(b.count for b in found.bins) == 100
    assert found.share[1] <= found.share[0] <= found.share[2]
    assert [c[0] for c in found.curve][-1] == 1.0
    assert found.curve[-1][1] == found.judged[found.held_out].mean()
    assert found.share[0] == pytest.approx(np.nanmean(found.judged))


def rows_and_labels(seed, n, ask):
    draw = np.random.default_rng(seed)
    rows = torch.from_numpy(draw.normal(size=(n, 3))).float()
    good = (draw.random(n) < 1 / (1 + np.exp(-1.5 * rows[:, 0].numpy() - 0.5))).astype(int)
    return rows, good, draw.permutation(n)[:ask]


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_intervals_hold_the_truth_however_many_were_judged(keep):
    held = []
    for seed in range(40):
        rows, good, asked = rows_and_labels(seed, 400, 40 if seed % 2 else 240)
        options = {"budget": Budget(keep), "strengths": (1.0,), **QUICK}
        found = decide(Dataset(rows), {"inputs": [rows]}, asked, good[asked], Context(seed=seed), **options)
        kept = found.selection.positions
        truth = good[kept].mean(), good[kept].sum() / good.sum(), good.mean()
        said = found.precision, found.recall, found.share
        held += [[low - 1e-9 <= true <= high + 1e-9 for (_, low, high), true in zip(said, truth, strict=True)]]
    assert np.mean(held, 0).min() >= 0.9


def test_a_budget_of_judged_good_ones_is_wholly_good_and_no_more_is_said_to_be_lost():
    rows, good, asked = rows_and_labels(0, 400, 200)
    options = {"budget": Budget(good[asked].sum()), **QUICK}
    found = decide(Dataset(rows), {"inputs": [rows]}, asked, good[asked], Context(), **options)
    assert found.precision == (1.0, 1.0, 1.0)
    true = good[asked].sum() / good.sum()
    assert found.recall[1] <= true <= found.recall[2]
    assert found.recall[2] < 0.65


def test_where_all_are_judged_nothing_is_estimated():
    rows, good, asked = rows_and_labels(1, 60, 60)
    found = decide(Dataset(rows), {"inputs": [rows]}, asked, good[asked], Context(), precision=0.99, **QUICK)
    assert np.array_equal(found.selection.positions, np.flatnonzero(good))
    assert found.precision == found.recall == (1.0, 1.0, 1.0)
    assert found.share == (good.mean(),) * 3
    assert "all were judged, and 100.0 % of the kept ones are good" in found.sentence
    assert "held-out samples before the cut" not in found.detail


def test_too_few_judged_before_the_cut_say_nothing():
    rows, _, asked = rows_and_labels(2, 4000, 12)
    good = (rows[:, 0] > 0).long().numpy()
    found = decide(
        Dataset(rows),
        {"inputs": [rows]},
        asked,
        good[asked],
        Context(),
        budget=Budget(int(good[asked].sum()) + 1),
        **QUICK,
    )
    assert found.cut.judged == 0
    assert np.isnan(found.precision[0])
    assert found.precision[1:] == (pytest.approx(1 - 1 / len(found.dataset)), 1.0)
    assert "too few were judged to say how good they are" in found.sentence
    assert "nan" not in found.detail


def test_another_order_of_the_samples_keeps_the_same():
    order = np.random.default_rng(4).permutation(N)
    (a, _), (b, _) = decided(budget=Budget(0.3)), decided(order=order, budget=Budget(0.3))
    assert set(a.dataset.ids.tolist()) == set(b.dataset.ids.tolist())
    assert np.array_equal(a.selection.values[order], b.selection.values)
    assert a.cut == b.cut


def test_what_cannot_be_said_is_refused():
    data, rows, good, asked = made()
    with pytest.raises(DataError, match="all 200 judged samples are good; expected at least 8, good ones and bad ones"):
        decide(data, {"inputs": [rows]}, asked, np.ones(200, int), Context(), precision=0.9)
    with pytest.raises(DataError, match="only 5 samples were judged"):
        decide(data, {"inputs": [rows]}, asked[:5], good[asked[:5]], Context(), precision=0.9)
    noise = np.random.default_rng(0).integers(0, 2, 200)
    with pytest.raises(ModicumError, match=r"precision=0.9 could not be shown with 100 held-out samples: the best cut"):
        decide(data, {"inputs": [rows]}, asked, noise, Context(), precision=0.9, **QUICK)
    with pytest.raises(ModicumError, match="expected one of them"):
        decide(data, {"inputs": [rows]}, asked, good[asked], Context())


def test_its_cost_is_charged():
    data, rows, good, asked = made()
    ctx = Context()
    decide(data, {"inputs": [rows]}, asked, good[asked], ctx, budget=Budget(0.5), **QUICK)
    assert ctx.ledger.total("choose").labels == 200
    assert ctx.ledger.total().flops > 0
