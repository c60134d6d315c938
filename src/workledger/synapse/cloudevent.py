"""An event as CloudEvents 1.0 sees it: attributes that brokers and other people's consumers can route by."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["attributes", "key_of"]


class _Event(msgspec.Struct, frozen=True, gc=False):
    event_id: str
    event_type: str
    entity_type: str | None
    entity_id: str | None
    workflow_id: str | None
    created_at: str


_decode = msgspec.json.Decoder(_Event).decode


def attributes(data: bytes, *, source: str) -> list[tuple[str, str]]:
    """Give the context attributes of the event whose JSON is `data`, by their CloudEvents names.

    `source` and `id` together identify an event. `partitionkey` is the extension of that name: events of one
    workflow have the same one.
    """
    event = _decode(data)
    found = [
        ("specversion", "1.0"),
        ("id", event.event_id),
        ("source", source),
        ("type", event.event_type),
        ("subject", f"{event.entity_type}/{event.entity_id}"),
        ("time", event.created_at),
    ]
    if event.workflow_id is not None:
        found.append(("partitionkey", event.workflow_id))
    return found


def key_of(found: Sequence[tuple[str, str]]) -> str:
    """Give what partitions go by: the workflow's id, or else the entity's."""
    by_name = dict(found)
    return by_name.get("partitionkey") or by_name["subject"].partition("/")[2]
