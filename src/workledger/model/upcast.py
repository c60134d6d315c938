"""Events of older versions, read as if they had been recorded today.

An event is never rewritten: it keeps the schema version it was recorded with. When the payload of a type changes its
shape, `SCHEMA_VERSION` goes up by one, and a function registered here turns a payload of the version before into the
next one. Whoever replays the log sees only the present shape. `tests/log/corpus/` keeps events of every version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from workledger.errors import SchemaError
from workledger.model.records import Event

__all__ = ["SCHEMA_VERSION", "Upcasters", "upcast"]

#: The version that events are recorded with; the default of `events.schema_version`.
SCHEMA_VERSION: Final = 1

Payload = dict[str, Any]


class Upcasters:
    """For each type of event and version, the function that makes the next version of a payload.

    >>> upcasters = Upcasters(current=2)
    >>> @upcasters.register("task.completed", version=1)
    ... def rename_result(payload):
    ...     return {"output" if key == "result" else key: value for key, value in payload.items()}
    """

    def __init__(self, *, current: int = SCHEMA_VERSION) -> None:
        self._current = current
        self._steps: dict[tuple[str, int], Callable[[Payload], Payload]] = {}

    def register(
        self, event_type: str, *, version: int
    ) -> Callable[[Callable[[Payload], Payload]], Callable[[Payload], Payload]]:
        """Have a function make payloads of version `version + 1` of those of `version`; one function for each."""

        def keep(step: Callable[[Payload], Payload]) -> Callable[[Payload], Payload]:
            if self._steps.setdefault((event_type, version), step) is not step:
                raise SchemaError(f"two functions make version {version + 1} of {event_type}")
            return step

        return keep

    def upcast(self, event: Event) -> Event:
        """The event in its present shape; raises `SchemaError` for one of a version that is not known yet."""
        if event.schema_version == self._current:
            return event
        if event.schema_version > self._current:
            raise SchemaError(
                f"event {event.event_id} has schema version {event.schema_version}; this Workledger knows up to "
                f"{self._current}. Upgrade it to the version that recorded the event"
            )
        payload_json = event.payload_json
        for version in range(event.schema_version, self._current):
            if (step := self._steps.get((event.event_type, version))) is not None:
                payload_json = json.dumps(step(json.loads(payload_json)), ensure_ascii=False)
        return msgspec.structs.replace(event, schema_version=self._current, payload_json=payload_json)


_UPCASTERS: Final = Upcasters()

#: Give an event of any version in its present shape.
upcast: Final = _UPCASTERS.upcast
