"""What the options of a method may be."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from modicum.errors import ModicumError

__all__ = ["check_options"]


def check_options(
    method: Any,
    *,
    positive: Collection[str] = (),
    not_negative: Collection[str] = (),
    shares: Collection[str] = (),
    below_one: Collection[str] = (),
    choices: Mapping[str, Collection[str]] | None = None,
) -> None:
    """Refuse options that make no sense; one whose default is an integer must be one.

    Args:
        method: A method object.
        positive: Names of options > 0.
        not_negative: Names of options >= 0.
        shares: Names of options in [0, 1], or in (0, 1] where they are positive too.
        below_one: Names of options in [0, 1), or in (0, 1) where they are positive too.
        choices: Allowed texts by name.

    Raises:
        ModicumError: An option is out of its range, not an integer where one is expected, or an unknown text.

    Example:
        >>> from modicum.methods import make
        >>> check_options(make("simclr"), positive=("temperature", "hidden"))
    """
    for name in dict.fromkeys((*positive, *not_negative, *shares, *below_one)):
        value, whole = getattr(method, name), isinstance(getattr(type(method), name), int)
        least = ">" if name in positive else ">="
        most, end = (1.0, "]" if name in shares else ")") if name in (*shares, *below_one) else (math.inf, "")
        expected = f"a number in {'(' if name in positive else '['}0, 1{end}" if end else f"a number {least} 0"
        expected = expected.replace("a number", "an integer") if whole else expected
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        right = (
            right and (value > 0 if name in positive else value >= 0) and (value < most or (end == "]" and value == 1))
        )
        if not right:
            raise ModicumError(f"method {method.card.key!r} option {name}={value!r}; expected {expected}")
    for name, allowed in (choices or {}).items():
        if getattr(method, name) not in allowed:
            texts = ", ".join(map(repr, allowed))
            raise ModicumError(f"method {method.card.key!r} option {name}={getattr(method, name)!r}; expected {texts}")
