"""A writer to be killed: `python writer.py URL NAME EVENTS ACKNOWLEDGED`.

Records the events 0, 1, 2, … of one entity, in batches; writes the number of each committed batch's last event to a
file. Started again it goes on after the last number there, with the same ids for the same events.
"""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from workledger.model import change
from workledger.model.payload import Packer
from workledger.operational.apply import apply_in_transaction, make_partitions
from workledger.postgres.connection import connect

BEGAN = datetime(2026, 3, 30, tzinfo=UTC)
BATCH = 50


def event(name: str, n: int):
    """The n-th event of a writer: always the same."""
    at = BEGAN + timedelta(milliseconds=n * 37)
    digest = int.from_bytes(hashlib.sha256(f"{name}/{n}".encode()).digest()[:10], "big")
    stamp = int(at.timestamp() * 1000) << 80
    bits = stamp | (7 << 76) | ((digest & 0xFFF) << 64) | (2 << 62) | (digest >> 18)
    return change.record_event(
        event_type="work.done",
        entity_type="writer",
        entity_id=name,
        at=at,
        packer=Packer(),
        payload={"n": n},
        event_id=str(uuid.UUID(int=bits)),
    )


def acknowledged(path: Path) -> int:
    """How many events are known to be committed."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return int(lines[-1]) + 1 if lines else 0


def main(url: str, name: str, events: int, path: Path) -> None:
    with connect(url, recording=True) as connection, path.open("ab", buffering=0) as file:
        for first in range(acknowledged(path), events, BATCH):
            batch = [event(name, n) for n in range(first, min(first + BATCH, events))]
            make_partitions(connection, batch)
            for outcome in apply_in_transaction(connection, batch):
                if isinstance(outcome, Exception):
                    raise outcome
            file.write(f"{first + len(batch) - 1}\n".encode())
            os.fsync(file.fileno())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
