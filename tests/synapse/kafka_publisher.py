"""A program that publishes a log made of nothing but its positions, until all of it is on the bus. It gets killed."""

from __future__ import annotations

import sys
import time

import orjson

from workledger.errors import SynapseUnavailable
from workledger.synapse.bus import BusEvent
from workledger.synapse.kafka import KafkaBus

BATCH = 200


def event(position: int) -> BusEvent:
    workflow_id = f"wf-{position * 7919 % 97}"
    line = {
        "position": position,
        "event_id": f"00000000-0000-7000-8000-{position:012d}",
        "event_type": "cache.hit",
        "entity_type": "cache",
        "entity_id": f"c-{position}",
        "workflow_id": workflow_id,
        "severity": "info",
        "created_at": "2026-03-01T12:00:00.000000Z",
        "payload": {"text": "x" * (position % 300)},
    }
    return BusEvent(position, "cache.hit", orjson.dumps(line))


def main(url: str, total: int) -> None:
    bus = KafkaBus(url, project="workledger")
    while True:
        try:
            top = bus.last_position()
            if top >= total:
                return
            bus.publish([event(n) for n in range(top + 1, min(top + BATCH, total) + 1)])
        except SynapseUnavailable:
            time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
