"""Messages as a chat: who said what, tool calls and their answers folded, whatever shape the message has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from markupsafe import Markup

from workledger.model.jsonvalue import TAG, unescape_text
from workledger.model.payload import reference_of
from workledger.server.pretty import laid_out
from workledger.server.text import visible
from workledger.server.urls import value_url
from workledger.server.views import MessageView

__all__ = ["Bubble", "Part", "ToolCall", "bubbles"]

#: A text longer than this is folded to its beginning.
FOLD_CHARS: Final = 1200
#: Of a system prompt or a tool's answer, which few read, this much stays open.
QUIET_CHARS: Final = 280
#: The beginning that a folded text shows.
SEEN_CHARS: Final = 160

_QUIET: Final = frozenset({"system", "developer", "tool", "function"})
_KNOWN: Final = frozenset({"role", "content", "tool_calls", "tool_call_id", "name"})
_SIDES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system", "tool": "tool"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of what was said. `seen` is the beginning when it is folded; `url` leads to a large one."""

    html: Markup
    size_bytes: int
    seen: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model asked for: the tool, the arguments in short, and laid out."""

    call_id: str
    name: str
    brief: str
    arguments: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubble:
    """One message, ready to be shown. `side` is the CSS class of its place."""

    message: MessageView
    role: str
    side: str
    name: str | None
    answers: str | None
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...]
    rest: Markup | None


def bubbles(messages: Iterable[MessageView]) -> list[Bubble]:
    """Messages as they are shown; an answer of a tool knows the name of the tool that was called."""
    called: dict[str, str] = {}
    shown: list[Bubble] = []
    for message in messages:
        bubble = _bubble(message, called)
        called.update((call.call_id, call.name) for call in bubble.tool_calls)
        shown.append(bubble)
    return shown


def _bubble(message: MessageView, called: Mapping[str, str]) -> Bubble:
    body: dict[str, Any] = msgspec.json.decode(message.body.json or "{}")
    call_id = _text(body.get("tool_call_id"))
    name = _text(body.get("name"))
    rest = {key: value for key, value in body.items() if key not in _KNOWN and value not in (None, "", [], {})}
    return Bubble(
        message=message,
        role=message.role,
        side=_SIDES.get(message.role, "other"),
        name=name or called.get(call_id or ""),
        answers=call_id,
        parts=tuple(_parts(body.get("content"), is_quiet=message.role in _QUIET)),
        tool_calls=tuple(_tool_calls(body.get("tool_calls"))),
        rest=laid_out(_dump(rest)) if rest else None,
    )


def _parts(content: Any, *, is_quiet: bool) -> Iterable[Part]:
    if content is None or content == "":
        return
    if isinstance(content, list):
        for piece in cast("list[Any]", content):
            yield from _piece(piece, is_quiet=is_quiet)
    else:
        yield _part(content, is_quiet=is_quiet)


def _piece(piece: Any, *, is_quiet: bool) -> Iterable[Part]:
    """One element of a content list: the text of a text part, anything else as JSON."""
    if isinstance(piece, dict) and isinstance((text := cast("dict[str, Any]", piece).get("text")), str):
        yield _part(text, is_quiet=is_quiet)
    else:
        yield _part(piece, is_quiet=is_quiet)


def _part(content: Any, *, is_quiet: bool) -> Part:
    if (found := reference_of(content)) is not None:
        return Part(html=Markup(), size_bytes=found.size_bytes, url=value_url(found.digest.hex()))
    if not isinstance(content, str):
        return _folded(laid_out(_dump(content)), _dump(content), is_quiet=is_quiet)
    text = unescape_text(content)
    parsed = _parsed(text) if is_quiet else None
    if parsed is not None:
        return _folded(laid_out(_dump(parsed)), text, is_quiet=True)
    return _folded(Markup('<div class="text" dir="auto">%s</div>') % visible(text), text, is_quiet=is_quiet)


def _folded(html: Markup, text: str, *, is_quiet: bool) -> Part:
    is_long = len(text) > (QUIET_CHARS if is_quiet else FOLD_CHARS)
    return Part(
        html=html,
        size_bytes=len(text.encode("utf-8", "surrogatepass")),
        seen=f"{' '.join(text[: SEEN_CHARS * 2].split())[:SEEN_CHARS]}…" if is_long else None,
    )


def _tool_calls(calls: Any) -> Iterable[ToolCall]:
    """Tool calls in the layout of chat completions; anything else in their place is shown as it is."""
    for call in cast("list[Any]", calls) if isinstance(calls, list) else [calls] if calls else []:
        fields = cast("dict[str, Any]", call) if isinstance(call, dict) else {}
        function = fields.get("function")
        named = cast("dict[str, Any]", function) if isinstance(function, dict) else fields
        name, given = _text(named.get("name")), named.get("arguments", named.get("input"))
        if TAG in fields or name is None:
            yield ToolCall(call_id="", name="tool call", brief="", arguments=laid_out(_dump(call)))
            continue
        parsed = _parsed(unescape_text(given)) if isinstance(given, str) else given
        yield ToolCall(
            call_id=_text(fields.get("id")) or "",
            name=name,
            brief=_brief(parsed if parsed is not None else given),
            arguments=laid_out(_dump(given if parsed is None else parsed)),
        )


def _brief(arguments: Any) -> str:
    """Arguments in a few words: `origin: JFK, destination: SEA`."""
    if not isinstance(arguments, dict):
        return unescape_text(str(arguments))[:SEEN_CHARS] if arguments else ""
    pairs = [
        f"{unescape_text(key)}: {unescape_text(value) if isinstance(value, str) else _dump(value)}"
        for key, value in cast("dict[str, Any]", arguments).items()
    ]
    return ", ".join(pairs)[:SEEN_CHARS]


def _parsed(text: str) -> Any:
    """What a text says in JSON when it is an object or a list, else None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    return unescape_text(value) if isinstance(value, str) else None


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
