"""One conversation as one example in the chat fine-tuning format.

The format is that of OpenAI's fine-tuning files, which others read too: `{"messages": […], "tools": […]}`, the
`arguments` of a tool call being JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from workledger.model.jsonvalue import TAG, is_placeholder

__all__ = ["NotAnExample", "example"]

_JSON_TYPES: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}

Message = dict[str, Any]


class NotAnExample(Exception):
    """Why a conversation cannot be learned from."""


def example(messages: Sequence[Message], *, tools: object = None) -> tuple[bytes, bool]:
    """Give a conversation as one line, and whether its text had to be repaired. Raises `NotAnExample`.

    `tools` are the definitions that were recorded; without them they are made up from the calls that were seen.
    """
    if not messages:
        raise NotAnExample("no messages")
    if not any(message.get("role") == "assistant" for message in messages):
        raise NotAnExample("no message of the assistant")
    document: dict[str, Any] = {"messages": [_with_text_arguments(message) for message in messages]}
    if definitions := _defined(tools) or _seen(messages):
        document["tools"] = definitions
    return _line(document)


def _line(document: dict[str, Any]) -> tuple[bytes, bool]:
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise NotAnExample("a value that JSON lacks") from error
    if TAG in text and any(map(is_placeholder, _walk(document))):
        raise NotAnExample("a value that could not be recorded")
    try:
        return text.encode() + b"\n", False
    except UnicodeEncodeError:
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return whole.encode() + b"\n", True


def _walk(value: object) -> Iterator[object]:
    yield value
    if isinstance(value, dict):
        inner: Iterable[object] = cast("dict[str, object]", value).values()
    elif isinstance(value, list):
        inner = cast("list[object]", value)
    else:
        return
    for one in inner:
        yield from _walk(one)


def _with_text_arguments(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_with_text(call) for call in cast("list[object]", calls)]}


def _with_text(call: object) -> object:
    function = _function_of(call)
    if function is None or isinstance(function.get("arguments", ""), str):
        return call
    try:
        arguments = json.dumps(function["arguments"], ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotAnExample("a value that JSON lacks") from error
    return {**cast("dict[str, Any]", call), "function": {**function, "arguments": arguments}}


def _function_of(call: object) -> dict[str, Any] | None:
    if isinstance(call, dict):
        function = cast("dict[str, Any]", call).get("function")
        if isinstance(function, dict):
            return cast("dict[str, Any]", function)
    return None


# -- tools ---------------------------------------------------------------------------------------------------------


def _defined(tools: object) -> list[dict[str, Any]]:
    """Give the recorded definitions, in the form of the format whatever form they were recorded in."""
    if not isinstance(tools, list):
        return []
    found = [cast("dict[str, Any]", tool) for tool in cast("list[object]", tools) if isinstance(tool, dict)]
    return [tool if "function" in tool else _as_function(tool) for tool in found if {"function", "name"} & tool.keys()]


def _as_function(tool: dict[str, Any]) -> dict[str, Any]:
    function = {key: value for key, value in tool.items() if key not in {"type", "input_schema"}}
    if "input_schema" in tool:
        function.setdefault("parameters", tool["input_schema"])
    return {"type": "function", "function": function}


def _seen(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Make up a definition for each tool that was called: its name, and the arguments it was seen with."""
    types: dict[str, dict[str, set[str]]] = {}
    for message in messages:
        calls = message.get("tool_calls")
        for call in cast("list[object]", calls) if isinstance(calls, list) else ():
            function = _function_of(call)
            if function is not None and isinstance(function.get("name"), str):
                _note(types.setdefault(function["name"], {}), function.get("arguments"))
    return [
        {"type": "function", "function": {"name": name, "parameters": _schema(arguments)}}
        for name, arguments in sorted(types.items())
    ]


def _note(types: dict[str, set[str]], arguments: object) -> None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return
    if isinstance(arguments, dict):
        for name, value in cast("dict[str, object]", arguments).items():
            types.setdefault(name, set()).add(_JSON_TYPES.get(type(value), "string"))


def _schema(types: dict[str, set[str]]) -> dict[str, Any]:
    properties = {
        name: {"type": next(iter(found)) if len(found) == 1 else sorted(found)} for name, found in sorted(types.items())
    }
    return {"type": "object", "properties": properties}
