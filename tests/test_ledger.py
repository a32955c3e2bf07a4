"""Charges add up."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.ledger import LARGEST, Charge, Ledger, Phase, epochs_elapsed

counts = st.integers(0, 10**15)
charges = st.builds(
    Charge,
    phase=st.sampled_from(["choose", "train", "evaluate"]),
    what=st.text(max_size=4),
    samples=counts, labels=counts, forward_flops=counts, backward_flops=counts, extra_flops=counts,
    seconds=st.integers(0, 1000).map(float), peak_bytes=counts, parameters=counts, bits=counts, bytes_sent=counts,
    uncounted=st.lists(st.sampled_from(["aten.a", "aten.b"]), max_size=2).map(tuple),
    sources=st.dictionaries(st.sampled_from("xyz"), st.tuples(counts, st.integers(1, 100)), max_size=2),
)  # fmt: skip
SUMMED = [f.name for f in fields(Charge) if f.name not in ("phase", "what", "uncounted", "sources", *LARGEST)]


@settings(max_examples=60, deadline=None)
@given(st.lists(charges, max_size=5), st.lists(charges, max_size=5))
def test_totals(first: list[Charge], second: list[Charge]) -> None:
    both = Ledger(first) + Ledger(second)
    total = both.total()
    phases: tuple[Phase, ...] = ("choose", "train", "evaluate")
    for name in SUMMED:
        assert getattr(total, name) == sum(getattr(c, name) for c in first + second)
        assert getattr(total, name) == sum(getattr(both.total(p), name) for p in phases)
    for name in LARGEST:
        assert getattr(total, name) == max([getattr(c, name) for c in first + second], default=0)
    assert total.flops == total.forward_flops + total.backward_flops + total.extra_flops
    assert set(total.uncounted) == {name for c in first + second for name in c.uncounted}
    for source, (seen, _) in total.sources.items():
        assert seen == sum(c.sources[source][0] for c in first + second if source in c.sources)
    assert both.as_phase("choose").total("choose").flops == total.flops
    assert both.as_phase("choose").total("train").flops == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(charges, max_size=4))
def test_json_round_trip(rows: list[Charge]) -> None:
    assert Ledger.from_json(json.loads(json.dumps(Ledger(rows).to_json()))).charges == rows


def test_adding_leaves_the_parts_alone() -> None:
    a, b = Ledger([Charge("train", "a", samples=1)]), Ledger([Charge("train", "b", samples=2)])
    both = a + b
    both.add(Charge("train", "c", samples=4))
    assert (a.total().samples, b.total().samples, both.total().samples) == (1, 2, 7)


def test_clock_charges_even_when_the_work_fails() -> None:
    ledger = Ledger()

    def fails() -> None:
        with ledger.clock("choose", "work", samples=3) as counts:
            counts["extra_flops"] = 7
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    (charge,) = ledger.charges
    assert (charge.phase, charge.what, charge.samples, charge.extra_flops) == ("choose", "work", 3, 7)
    assert 0 < charge.seconds < 5
    assert charge.peak_bytes > 1 << 20


def test_share_of_a_charge() -> None:
    whole = Charge("train", "a", samples=10, labels=5, forward_flops=100, backward_flops=200, seconds=4.0, peak_bytes=9)
    half = whole.scaled(0.5)
    assert (half.samples, half.flops, half.seconds) == (5, 150, 2.0)
    assert (half.labels, half.peak_bytes) == (5, 9)


def test_the_table_of_gpt3() -> None:
    sizes = {"crawl": 410, "webtext": 19, "books1": 12, "books2": 55, "wikipedia": 3}
    weights = {"crawl": 0.60, "webtext": 0.22, "books1": 0.08, "books2": 0.08, "wikipedia": 0.03}
    epochs = epochs_elapsed(sizes, weights, 300)
    assert round(epochs["crawl"], 2) == 0.44
    assert round(epochs["books2"], 2) == 0.44
    assert round(epochs["wikipedia"], 1) == 3.0


def test_epochs_of_sources_are_seen_over_size() -> None:
    ledger = Ledger(
        [Charge("train", "fit", sources={"a": (50, 100)}), Charge("train", "fit", sources={"a": (25, 100)})]
    )
    assert ledger.epochs() == {"a": 0.75}
