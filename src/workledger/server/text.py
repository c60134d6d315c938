"""Text and quantities as people read them; what cannot be seen is made visible."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from markupsafe import Markup, escape

__all__ = ["age", "count", "duration", "exact", "plain", "size", "visible"]

# What a browser refuses, drops, or lets a text reorder its surroundings with: control characters, lone surrogates,
# bidirectional overrides and isolates, noncharacters.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400


def plain(text: str) -> str:
    r"""The text with what cannot be seen written as `\u0000`: for attributes, titles and everywhere else."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def visible(text: str) -> Markup:
    r"""The text escaped for HTML, with what cannot be seen written as `\u0000` and marked as not the text's own."""
    return Markup(_UNSEEN.sub(_marked, str(escape(text))))  # noqa: S704  escaped one call before


def _marked(match: re.Match[str]) -> str:
    return f'<span class="unseen">\\u{ord(match.group()):04x}</span>'


def exact(at: datetime | None) -> str:
    """An instant to the millisecond, in UTC."""
    if at is None:
        return ""
    return at.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", " UTC")


def age(at: datetime, now: datetime) -> str:
    """How long ago an instant was, roughly: `just now`, `12 s ago`, `3 min ago`, `5 h ago`, `2 d ago`, `in 4 s`."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    rough = _rough(abs(seconds))
    return f"{rough} ago" if seconds > 0 else f"in {rough}"


def _rough(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S:.0f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds // _HOUR_S:.0f} h"
    return f"{seconds // _DAY_S:,.0f} d"


def duration(value: float | timedelta | None) -> str:
    """A duration (in milliseconds) in about three digits: `0.4 ms`, `250 ms`, `1.24 s`, `2 min 05 s`, `3 h 12 min`."""
    if value is None:
        return ""
    ms = value.total_seconds() * 1000 if isinstance(value, timedelta) else value
    seconds = ms / 1000
    if ms < 999.5:  # noqa: PLR2004  rounds to 1 s
        return f"{ms:.1f} ms" if 0 < ms < 10 else f"{ms:.0f} ms"  # noqa: PLR2004
    if seconds < _MINUTE_S:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S:.0f} min {seconds % _MINUTE_S:02.0f} s"
    if seconds < _DAY_S:
        return f"{seconds // _HOUR_S:.0f} h {seconds % _HOUR_S // _MINUTE_S:02.0f} min"
    return f"{seconds // _DAY_S:,.0f} d {seconds % _DAY_S // _HOUR_S:02.0f} h"


def size(size_bytes: int) -> str:
    """A size in decimal units: `812 bytes`, `4.1 kB`, `1.0 MB`."""
    if size_bytes < 1000:  # noqa: PLR2004
        return f"{size_bytes} bytes"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:  # noqa: PLR2004  rounds to 1000.0
            return f"{value:.1f} {unit}"
    return f"{value / 1000:,.1f} TB"


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"
