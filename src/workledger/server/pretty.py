"""Recorded JSON as HTML: laid out, coloured by CSS classes, long strings folded, everything escaped."""

from __future__ import annotations

import json
from typing import Any, Final, cast

import msgspec
from markupsafe import Markup, escape

from workledger.model.jsonvalue import TAG, unescape_text
from workledger.server.text import plain, size, visible
from workledger.server.urls import value_url

__all__ = ["laid_out", "one_line"]

#: A container whose JSON is not longer than this stands on one line.
LINE_CHARS: Final = 76
#: A string longer than this is folded.
FOLD_CHARS: Final = 400
#: Of a folded string this much is seen.
SEEN_CHARS: Final = 96


def laid_out(text: str, *, is_open: bool = False) -> Markup:
    """JSON text (as it is stored) as HTML. A text of its own is shown as text, not as a JSON string.

    Long strings are folded, unless `is_open`.
    """
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:  # a number beyond what Python reads: shown as it is stored
        value = text
    if isinstance(value, str):
        return Markup('<div class="text" dir="auto">%s</div>') % visible(unescape_text(value))
    printer = _Printer(is_open=is_open)
    printer.value(value, 0)
    return Markup('<div class="json">%s</div>') % printer.html()


def one_line(text: str, *, chars: int = 120) -> str:
    """The beginning of JSON text on one line, for a preview."""
    shown = unescape_text(text[: chars * 2]).replace("\n", " ")
    return shown if len(shown) <= chars else shown[:chars] + "…"


class _Printer:
    """One walk over one value."""

    def __init__(self, *, is_open: bool) -> None:
        self._fold = Markup('<details class="fold" open>') if is_open else Markup('<details class="fold">')
        self._out: list[Markup] = []

    def html(self) -> Markup:
        return Markup("").join(self._out)

    def value(self, value: Any, depth: int) -> None:
        if isinstance(value, dict):
            self._mapping(cast("dict[str, Any]", value), depth)
        elif isinstance(value, list):
            self._items(cast("list[Any]", value), depth)
        elif isinstance(value, str):
            self._string(unescape_text(value))
        else:
            self._put("l" if value is None or isinstance(value, bool) else "n", json.dumps(value))

    def _mapping(self, value: dict[str, Any], depth: int) -> None:
        if TAG in value:
            self._tagged(value, depth)
            return
        self._container("{", "}", list(value.items()), depth, size_of=value)

    def _items(self, value: list[Any], depth: int) -> None:
        self._container("[", "]", [(None, item) for item in value], depth, size_of=value)

    def _container(
        self, opening: str, closing: str, items: list[tuple[str | None, Any]], depth: int, *, size_of: Any
    ) -> None:
        is_short = _is_short(size_of)
        between = " " if is_short else "\n" + "  " * (depth + 1)
        self._raw(opening)
        for index, (key, item) in enumerate(items):
            padding = "" if is_short and index == 0 else between
            self._raw(f",{padding}" if index else padding)
            if key is not None:
                self._put("k", _json_string(unescape_text(key)))
                self._raw(": ")
            self.value(item, depth + 1)
        if items and not is_short:
            self._raw("\n" + "  " * depth)
        self._raw(closing)

    def _string(self, text: str) -> None:
        if len(text) <= FOLD_CHARS:
            self._put("s", _json_string(text))
            return
        seen = text[:SEEN_CHARS].replace("\n", " ")
        self._out.append(
            self._fold
            + Markup('<summary><span class="s">"%s…"</span> <span class="size">%s</span></summary>')
            % (visible(seen), size(len(text.encode("utf-8", "surrogatepass"))))
            + Markup('<div class="text" dir="auto">%s</div></details>') % visible(text)
        )

    def _tagged(self, value: dict[str, Any], depth: int) -> None:
        """A value that JSON lacks: what it is, in the words of Python."""
        tag = value[TAG]
        if tag == "payload":
            self._reference(value)
        elif tag == "placeholder":
            self._note(f"{value.get('type')} not kept: {value.get('reason')}")
            self._raw(" ")
            self._string(unescape_text(str(value.get("repr", ""))))
        elif tag == "dict" or "value" not in value:
            inner = value.get("value", {}) if tag == "dict" else value
            self._container("{", "}", list(inner.items()), depth, size_of=inner)
        elif tag == "float":
            self._put("n", str(value["value"]))
        else:
            self.value(value["value"], depth)
            self._raw(" ")
            self._note(str(value.get("type", tag)))

    def _reference(self, value: dict[str, Any]) -> None:
        digest, size_bytes = value.get("digest"), value.get("size")
        if not isinstance(digest, str) or not isinstance(size_bytes, int):
            self._note("a reference that cannot be read")
            return
        self._out.append(Markup('<a href="%s">%s, kept by digest</a>') % (value_url(digest), size(size_bytes)))

    def _note(self, text: str) -> None:
        self._put("type", plain(unescape_text(text)))

    def _put(self, kind: str, text: str) -> None:
        self._out.append(Markup('<span class="%s">%s</span>') % (kind, visible(text)))

    def _raw(self, text: str) -> None:
        self._out.append(escape(text))


def _is_short(value: Any) -> bool:
    """Say whether a container fits on a line; looks at no more than it must."""
    return _width(value, LINE_CHARS) >= 0


def _width(value: Any, left: int) -> int:
    """How many of `left` characters remain after a value; below 0 when they do not suffice."""
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            left = _width(item, left - len(key) - 6)
            if left < 0:
                return left
        return left - 2
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            left = _width(item, left - 2)
            if left < 0:
                return left
        return left - 2
    return left - (len(value) + 2 if isinstance(value, str) else 6)


def _json_string(text: str) -> str:
    """A JSON string that keeps letters as they are; what cannot be seen is escaped."""
    return plain(json.dumps(text, ensure_ascii=False))
