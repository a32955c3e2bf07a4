"""Descriptions: names with options, canonical forms, content keys."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import ModicumError
from modicum.spec import canonical, content_key, format_call, parse_call

names = st.from_regex(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", fullmatch=True)
words = st.from_regex(r"[a-z]{1,6}x", fullmatch=True)  # no keyword of the language ends so
literals = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.text() | st.none()
values = literals | st.lists(literals, max_size=2).map(tuple)


@settings(max_examples=200, deadline=None)
@given(names, st.dictionaries(words, values, max_size=3))
def test_format_and_parse_are_inverse(name: str, options: dict[str, Any]) -> None:
    assert parse_call(format_call(name, options)) == (name, options)


@pytest.mark.parametrize("text", ["mlp", " mlp ", "mlp()", "mlp( )"])
def test_no_options(text: str) -> None:
    assert parse_call(text) == ("mlp", {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "a b",
        "f(1)",
        "f(x=",
        "f(x=1",
        "f(x=y)",
        "f(x=1)+1",
        "f(**{'a': 1})",
        "f(x=__import__('os'))",
        "f)(",
        "a.b",
    ],
)
def test_what_is_no_description(text: str) -> None:
    with pytest.raises(ModicumError, match="is not a name with options; expected for example 'el2n'"):
        parse_call(text)


@settings(max_examples=100, deadline=None)
@given(st.recursive(literals, lambda x: st.lists(x, max_size=3) | st.dictionaries(words, x, max_size=3), max_leaves=8))
def test_canonical_is_stable_and_idempotent(value: Any) -> None:
    once = canonical(value)
    assert canonical(once) == once
    assert content_key(value) == content_key(once)


@dataclasses.dataclass(frozen=True)
class Thing:
    size: int = 1
    note: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Other:
    size: int = 1


def test_dataclasses_are_told_apart_by_what_compares() -> None:
    assert content_key(Thing()) == content_key(Thing(note="x"))
    assert len({content_key(t) for t in (Thing(), Thing(2), Other(), {"size": 1})}) == 4


def test_keys() -> None:
    assert content_key({"a": 1, "b": (1, 2)}) == content_key({"b": [1, 2], "a": 1})
    assert content_key(1, 2) != content_key([1, 2])
    assert content_key("1") != content_key(1)
    assert len(content_key("x", length=8)) == 8
    assert content_key("golden") == "fc7ec44137935309"
    assert canonical(parse_call) == "modicum.spec:parse_call"


def test_no_stable_description() -> None:
    with pytest.raises(ModicumError, match=r"of type object cannot be part of a description; use plain values"):
        content_key(object())
