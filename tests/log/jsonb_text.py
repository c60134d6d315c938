"""How PostgreSQL prints `jsonb`, written down a second time: the bytes that a seal commits to need no PostgreSQL."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any


def jsonb_text(text: str) -> str:
    """The text of `jsonb` made of this JSON: keys by length and bytes, the last of equals, every digit of a number."""
    return _write(json.loads(text, parse_int=Decimal, parse_float=Decimal))


def _write(value: Any) -> str:
    match value:
        case dict():
            ordered = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
            return "{" + ", ".join(f"{_text(key)}: {_write(value[key])}" for key in ordered) + "}"
        case list():
            return f"[{', '.join(map(_write, value))}]"
        case str():
            return _text(value)
        case Decimal():
            return f"{abs(value) if value == 0 else value:f}"
        case _:
            return json.dumps(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
