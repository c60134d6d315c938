"""Pages by keyset: where one ends, the next begins, however much has come in between, and as fast on page 10,000."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from workledger.errors import InvalidInput

__all__ = ["Page", "make_page", "read_cursor", "write_cursor"]

Item = TypeVar("Item")


class Page(list[Item]):
    """The items of one page. `cursor` asks for the next one; it is None on the last."""

    def __init__(self, items: Iterable[Item] = (), *, cursor: str | None = None) -> None:
        super().__init__(items)
        self.cursor = cursor


def make_page(items: list[Item], *, limit: int, name: str, place: Callable[[Item], tuple[Any, ...]]) -> Page[Item]:
    """A page of the first `limit` items, of which one more was read; `place` gives the sort key of an item."""
    if len(items) <= limit:
        return Page(items)
    return Page(items[:limit], cursor=write_cursor(name, *place(items[limit - 1])))


def write_cursor(name: str, *place: Any) -> str:
    """The cursor of a place in the list `name`: opaque text, safe in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode((name, *place))).rstrip(b"=").decode()


def read_cursor(name: str, cursor: str | None, *kinds: Any) -> tuple[Any, ...]:
    """The place that a cursor of the list `name` means, as values of these kinds; all None without one.

    Raises `InvalidInput` for anything else, a cursor of another list included.
    """
    if cursor is None:
        return (None,) * len(kinds)
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found_name, *place = msgspec.json.decode(data, type=tuple[(str, *kinds)])
        if found_name == name:
            return tuple(place)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        pass
    raise InvalidInput(
        f"cursor {cursor[:80]!r} is not one that this list gave; leave it out to begin at the first page",
        field="cursor",
        value=cursor,
        limit=f"a cursor of {name}",
    )
