"""Values as text for people: ages, sizes, and recorded text that cannot hurt a terminal."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from workledger.errors import InvalidInput

__all__ = ["age", "clip", "count", "duration", "first_line", "parse_since", "printable", "size", "when"]

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def printable(text: object) -> str:
    """Text with control characters, which a terminal might obey, written out."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), str(text))


def first_line(text: object) -> str:
    """The first line that says something."""
    lines = [line.strip() for line in printable(text).splitlines() if line.strip()]
    return lines[0] if lines else ""


def clip(text: str, width: int) -> str:
    """At most `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def age(since: datetime | None, *, now: datetime) -> str:
    """How long ago: `12s`, `3m 05s`, `2h 10m`, `4d 3h`."""
    return "" if since is None else _span(max((now - since).total_seconds(), 0))


def duration(milliseconds: float | None) -> str:
    """A duration: `0.4 ms`, `120 ms`, `3.25 s`, `3m 05s`."""
    if milliseconds is None:
        return ""
    if milliseconds < 10:  # noqa: PLR2004
        return f"{milliseconds:.1f} ms"
    if milliseconds < 1000:  # noqa: PLR2004
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.2f} s" if milliseconds < 60_000 else _span(milliseconds / 1000)  # noqa: PLR2004


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole}s"
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:  # noqa: PLR2004
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def when(at: datetime | None) -> str:
    """An instant in UTC to the second."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def count(number: int, noun: str) -> str:
    """`1 row`, `5,308 rows`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith(("s", "h")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def size(size_bytes: float) -> str:
    """`812 B`, `3.4 KiB`, `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:  # noqa: PLR2004
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def parse_since(text: str, *, now: datetime, option: str = "--since") -> datetime:
    """An instant, given as `90s`, `15m`, `1h`, `7d`, `2w` ago or as an ISO time with its zone."""
    if match := _AGO.fullmatch(text.strip()):
        return now - timedelta(seconds=float(match[1]) * _UNITS_S[match[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidInput(
            f"{option} {text!r} is no time; give an age (90s, 15m, 1h, 7d, 2w) or a time with its zone "
            "(2026-01-31T08:00Z)",
            field="since",
            value=text,
            limit=None,
        )
    return at
