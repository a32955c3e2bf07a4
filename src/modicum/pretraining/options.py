"""What the options of a method may be."""

from __future__ import annotations

import math
from typing import Any

from modicum.errors import ModicumError

__all__ = ["check_options"]


def check_options(
    method: Any, *, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = (), shares: tuple[str, ...] = ()
) -> None:
    """Refuse options that make no sense; one whose default is an integer must be one.

    Args:
        method: A method object.
        positive: Names of options > 0.
        not_negative: Names of options >= 0.
        shares: Names of options in [0, 1].

    Raises:
        ModicumError: An option is out of its range, or not an integer where one is expected.

    Example:
        >>> from modicum.methods import make
        >>> check_options(make("simclr"), positive=("temperature", "hidden"))
    """
    for name in (*positive, *not_negative, *shares):
        value = getattr(method, name)
        whole = isinstance(getattr(type(method), name), int)
        expected = ("an integer" if whole else "a number") + (" >= 0" if name in not_negative else " > 0")
        expected = "a number in [0, 1]" if name in shares else expected
        right = isinstance(value, int if whole else (int, float)) and 0 <= value < math.inf
        if not right or (name in positive and not value) or (name in shares and value > 1):
            raise ModicumError(f"method {method.card.key!r} option {name}={value!r}; expected {expected}")
