"""Numbers and text as people read them, and as HTML and scripts can hold them safely."""

from __future__ import annotations

import html
import json
import math
import re
from typing import Any

__all__ = ["count", "escape", "metric", "percent", "plus_minus", "quantity", "ratio", "script_json", "seconds"]

NOTHING = "–"
SPACE = "\N{NO-BREAK SPACE}"
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(value: object) -> str:
    """Text that is safe in HTML, in an element or in a quoted attribute, and that any file can hold.

    Example:
        >>> escape('<b title="x">')
        '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True)


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element; numbers that are not finite become null.

    Example:
        >>> script_json({"a": "</script>", "b": float("nan")})
        '{"a":"\\\\u003c/script\\\\u003e","b":null}'
    """
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def quantity(value: float, unit: str) -> str:
    """A number with a decimal prefix and two or three digits.

    Example:
        >>> quantity(1.24e9, "FLOP"), quantity(12_300_000, "B"), quantity(999_999, "B"), quantity(0, "B")
        ('1.2\\xa0GFLOP', '12\\xa0MB', '1.0\\xa0MB', '0\\xa0B')
    """
    if not math.isfinite(value):
        return NOTHING
    size, power = abs(value), 0
    while power < len(PREFIXES) - 1 and size >= 999.5:
        size, power = size / 1000, power + 1
    digits = f"{size:.1f}" if 0 < size < 9.95 and not (power == 0 and size == int(size)) else f"{size:,.0f}"
    return f"{'-' if value < 0 else ''}{digits}{SPACE}{PREFIXES[power]}{unit}"


def seconds(value: float) -> str:
    """A duration.

    Example:
        >>> seconds(0.0123), seconds(3.41), seconds(125), seconds(4_320)
        ('12\\xa0ms', '3.4\\xa0s', '2\\xa0min 5\\xa0s', '1\\xa0h 12\\xa0min')
    """
    if not math.isfinite(value):
        return NOTHING
    if value <= 0:
        return f"0{SPACE}s"
    if value < 0.9995:
        return f"{value * 1000:.0f}{SPACE}ms" if value >= 0.0095 else f"{value * 1000:.1f}{SPACE}ms"
    if value < 59.5:
        return f"{value:.1f}{SPACE}s" if value < 9.95 else f"{value:.0f}{SPACE}s"
    if value < 3599.5:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes}{SPACE}min {rest}{SPACE}s"
    hours, rest = divmod(round(value / 60), 60)
    return f"{hours:,}{SPACE}h {rest}{SPACE}min"


def count(value: float) -> str:
    """A number of things: whole with separators up to a million, with a prefix above.

    Example:
        >>> count(53_910), count(2_345_678)
        ('53,910', '2.3\\xa0M')
    """
    if not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) < 999_999.5 else quantity(value, "")


def percent(value: float) -> str:
    """A fraction as percent with one decimal.

    Example:
        >>> percent(0.9724)
        '97.2\\xa0%'
    """
    return f"{value * 100:.1f}{SPACE}%" if math.isfinite(value) else NOTHING


def metric(value: float, name: str) -> str:
    """A metric: accuracy as percent, anything else with three decimals."""
    if name == "accuracy":
        return percent(value)
    return f"{value:.3f}" if math.isfinite(value) else NOTHING


def plus_minus(mean: float, std: float, name: str) -> str:
    """A metric with its standard deviation, where there is one.

    Example:
        >>> plus_minus(0.9724, 0.0031, "accuracy"), plus_minus(0.5, float("nan"), "R²")
        ('97.2\\xa0±\\xa00.3\\xa0%', '0.500')
    """
    if not (math.isfinite(mean) and math.isfinite(std)):
        return metric(mean, name)
    if name == "accuracy":
        return f"{mean * 100:.1f}{SPACE}±{SPACE}{std * 100:.1f}{SPACE}%"
    return f"{mean:.3f}{SPACE}±{SPACE}{std:.3f}"


def ratio(value: float) -> str:
    """How many times.

    Example:
        >>> ratio(0.314), ratio(12.3), ratio(0.00312)
        ('0.31×', '12×', '0.0031×')
    """
    if not math.isfinite(value):
        return NOTHING
    if abs(value) >= 9.995:
        return f"{value:,.0f}×"
    return f"{value:.2f}×" if abs(value) >= 0.0995 else f"{value:.2g}×"
