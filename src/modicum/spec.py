"""Short descriptions of things: `convnet(width=32)` names a model or method with options; keys name results."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from modicum.errors import ModicumError

__all__ = ["canonical", "content_key", "format_call", "parse_call"]


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Split `name(option=value, ...)` into the name and its options; values are Python literals, never evaluated.

    Args:
        text: A name such as `el2n`, with options in brackets or without.

    Returns:
        The name and a dictionary of options.

    Raises:
        ModicumError: The text is not of that form.

    Example:
        >>> parse_call("convnet(width=32, depth=3)")
        ('convnet', {'width': 32, 'depth': 3})
    """
    name, bracket, rest = text.strip().partition("(")
    name = name.strip()
    problem = f"{text!r} is not a name with options; expected for example 'el2n' or 'el2n(runs=1)'"
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise ModicumError(problem)
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        return name, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg or _refuse()}
    except (SyntaxError, ValueError) as error:
        raise ModicumError(problem) from error


def _refuse() -> bool:
    raise ValueError


def format_call(name: str, options: Mapping[str, Any]) -> str:
    """The inverse of `parse_call`.

    Example:
        >>> format_call("el2n", {"runs": 1})
        'el2n(runs=1)'
    """
    inside = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"{name}({inside})" if inside else name


def canonical(value: Any) -> Any:
    """The same description as JSON types only, so that equal things have equal text whatever built them.

    A field of a dataclass whose metadata say `later` came in a later release: at its default it is left out, so that what
    was done before it was there keeps its name.

    Raises:
        ModicumError: Something in it has no stable description.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: getattr(value, f.name)
            for f in dataclasses.fields(value)
            if f.compare and not (f.metadata.get("later") and getattr(value, f.name) == f.default)
        }
        return {"type": type(value).__name__, **canonical(fields)}
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    raise ModicumError(f"{value!r} of type {type(value).__name__} cannot be part of a description; use plain values")


def content_key(*parts: Any, length: int = 16) -> str:
    """A short name for a description: the first hexadecimal digits of its sha256.

    Example:
        >>> content_key({"b": 1, "a": 2}) == content_key({"a": 2, "b": 1})
        True
    """
    text = json.dumps([canonical(p) for p in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]
