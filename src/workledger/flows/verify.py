"""Checking the stores against each other: does the log explain the state, and is the log whole?

Every check of PostgreSQL sees one moment, so that it can run while others record. A consumer that is behind has a
lag, which is not a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Rollback

from workledger.errors import StoreCorrupted
from workledger.flows.log_to_metrics import verify_metrics
from workledger.flows.mount import Mount
from workledger.flows.replay import STATE_TABLES, Difference, Unreplayable, compare, replay
from workledger.flows.seal import verify_seals
from workledger.flows.verify_store import verify_store
from workledger.log.seal_checkpoints import CheckpointStore
from workledger.log.seal_notes import parse_verifier_key
from workledger.model.payload import Blob, unpack_blob
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load
from workledger.training.shard_store import has_shards
from workledger.training.store import TrainingStore

__all__ = [
    "DATABASE_CHECKS",
    "Check",
    "Fault",
    "Progress",
    "check_archives",
    "check_database",
    "check_events",
    "check_log",
    "check_metrics",
    "check_payloads",
    "check_seals",
    "check_state",
    "check_training",
    "one_moment",
]

#: What `check_database` can check, cheapest first.
DATABASE_CHECKS: Final = ("log", "events", "payloads", "state")

#: Of each kind of fault, so many are named; all are counted where counting is cheap.
SHOWN: Final = 100
_VALUE_CHARS: Final = 120
_PAYLOAD_PAGE: Final = 200

#: Hears how many of the things a check goes through have been done.
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is not as it was recorded: where it is, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(slots=True, kw_only=True)
class Check:
    """One check: what it looked at, with counts, and what it found. `lag` counts positions not yet dealt with.

    `store` names the store that was looked at, where there can be several.
    """

    name: str
    promise: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    faults: list[Fault] = field(default_factory=list[Fault])
    fault_count: int = 0
    lag: int | None = None
    note: str | None = None
    store: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.fault_count

    def add(self, where: str, what: str) -> None:
        """Add a fault; of many, the first are kept."""
        self.fault_count += 1
        if len(self.faults) < SHOWN:
            self.faults.append(Fault(where=where, what=what))


def check_database(
    connection: Connection, *, schema: str, names: Sequence[str], on_progress: Callable[[str, int], None] | None = None
) -> Iterator[Check]:
    """Run the checks of PostgreSQL that are named, all at one moment; sees what was committed when it began.

    The connection should be one for recording: its plans are what the replay is quick with.
    """

    def tell(name: str) -> Progress | None:
        return None if on_progress is None else partial(on_progress, name)

    checks: dict[str, Callable[[], Check]] = {
        "log": lambda: check_log(connection),
        "events": lambda: check_events(connection),
        "payloads": lambda: check_payloads(connection, on_progress=tell("payloads")),
        "state": lambda: check_state(connection, schema=schema, on_progress=tell("state")),
    }
    with one_moment(connection):
        for name in names:
            yield checks[name]()


def check_metrics(connection: Connection) -> Check:
    """The counters that are shown are what the events add up to, as far as they have been counted (promise 11)."""
    check = Check(name="metrics", promise="counters and histograms equal what the log adds up to")
    try:
        report = verify_metrics(connection)
    except StoreCorrupted as error:
        check.add(str(error.location), error.message)
        return check
    check.counts = {"numbers": report.numbers, "positions counted": report.position}
    check.lag = report.lag
    for finding in report.findings:
        check.add(f"metrics[{finding.series}]", f"is {finding.shown}; the log adds up to {finding.expected}")
    return check


def check_training(
    connection: Connection, store: TrainingStore, *, repair: bool = False, on_progress: Progress | None = None
) -> Check:
    """Every position is in the training store once, and every line says what the log says (promise 5).

    With `repair`, what is not right is refilled from the log first, and the check is of what is there then.
    """
    promise = "each position is landed once, each line says what the log says"
    check = Check(name="training", promise=promise, store=store.name)
    report, repaired = verify_store(
        connection, store, repair=repair, on_progress=None if on_progress is None else _first_of(on_progress)
    )
    if repaired:
        check.note = "put right: " + ", ".join(f"{noun} {number}" for noun, number in repaired.items())
    check.counts = {"position": report.position}
    if has_shards(store):
        check.counts |= {"ranges": report.ranges, "files": report.files}
    check.counts |= {f"{record_type} lines": rows for record_type, rows in report.rows.items()}
    check.lag = report.lag
    for finding in report.findings:
        check.add(finding.location, finding.message)
    check.fault_count = report.finding_count
    return check


def _first_of(on_progress: Progress) -> Callable[[int, int], None]:
    return lambda done, _total: on_progress(done)


def check_seals(
    connection: Connection,
    *,
    keys: Sequence[str] = (),
    checkpoints: CheckpointStore | None = None,
    on_progress: Progress | None = None,
) -> Check:
    """What is sealed is what it was when it was sealed (promise 4).

    `keys` are the public keys to trust, as `workledger keys new` prints them; without any, those that the database
    lists are believed. `checkpoints` is where checkpoints were kept.
    """
    check = Check(name="seals", promise="what is sealed is what it was when it was sealed")
    report = verify_seals(
        connection,
        keys=[parse_verifier_key(key) for key in keys],
        checkpoints=None if checkpoints is None else checkpoints.read_all(),
        on_progress=on_progress,
    )
    check.counts = {"seals": report.seals, "signed": report.signed, "events": report.events, "erased": report.erased}
    check.counts["checkpoints"] = report.checkpoints
    check.lag = report.unsealed
    for finding in report.findings:
        check.add(finding.location, finding.message)
    check.fault_count = report.finding_count
    return check


def check_archives(connection: Connection, mount: Mount, *, on_progress: Progress | None = None) -> Check:
    """Every file of the archive is what was recorded, and the log says so (promises 1 and 4 for what was moved)."""
    from workledger.flows.verify_archives import verify_files  # noqa: PLC0415  needs an extra, and only archives do

    check = Check(name="archives", promise="every file of the archive is what was recorded, and the log says so")
    files, rows, faults = verify_files(connection, on_progress=on_progress)
    check.counts = {"files": files, "rows": rows, "events": mount.events}
    told = {where for where, _ in faults}
    for where, what in faults:
        check.add(where, what)
    for file, error in mount.faults:
        if file.url not in told:
            check.add(file.url, error.message)
    return check


@contextmanager
def one_moment(connection: Connection) -> Generator[None]:
    """Have everything in the block see one moment of the database, and leave nothing behind."""
    with translate_errors(), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield
        raise Rollback


def check_log(connection: Connection) -> Check:
    """Positions are 1 to the head without gap or repetition, and every event has one or waits for it."""
    check = Check(name="log", promise="positions are dense, each event has exactly one")
    ((head, positions, events, waiting),) = _fetch(connection, "count_log", ())
    check.counts = {"head": head, "positions": positions, "events": events, "not sequenced yet": waiting}
    for what, first, last, event_id in _fetch(connection, "check_positions", (SHOWN,)):
        check.add(_position(first, last, event_id), what)
    return check


def check_events(connection: Connection) -> Check:
    """Each event of the ledger's own is one that its guards allow where it stands, and agrees with itself."""
    check = Check(name="events", promise="each thing begins and ends once, in an order that the guards allow")
    ((_, _, events, _),) = _fetch(connection, "count_log", ())
    check.counts = {"events": events}
    for what, position, event_id, *entity in _fetch(connection, "check_events", (SHOWN,)):
        check.add(_event(position, event_id, *entity), what)
    return check


def check_payloads(connection: Connection, *, on_progress: Progress | None = None) -> Check:
    """Every reference to a stored payload leads to one, and every payload has the content its digest names."""
    check = Check(name="payloads", promise="large values are there and have the content their digests name")
    for position, event_id, *entity, digest in _fetch(connection, "check_references", (SHOWN,)):
        check.add(_event(position, event_id, *entity), f"refers to payload {digest}, which is missing")
    done = 0
    for blob in _blobs(connection):
        done += 1
        try:
            unpack_blob(blob)
        except StoreCorrupted as error:
            check.add(f"payloads[{blob.digest.hex()}]", error.message)
        except ValueError as error:
            check.add(f"payloads[{blob.digest.hex()}]", f"is not the JSON it was: {error}")
        if on_progress is not None:
            on_progress(done)
    check.counts = {"payloads": done}
    return check


def _blobs(connection: Connection) -> Iterator[Blob]:
    after = b""
    while page := _fetch(connection, "page_payloads", (after, _PAYLOAD_PAGE)):
        for digest, codec, size_bytes, body in page:
            yield Blob(digest=digest, codec=codec, size_bytes=size_bytes, body=body)
        after = page[-1][0]


def check_state(connection: Connection, *, schema: str, on_progress: Progress | None = None) -> Check:
    """Replaying the events gives exactly the rows in the state tables, column by column (promise 2)."""
    check = Check(name="state", promise="replaying the log gives the state, column by column")
    for refused in replay(connection, schema=schema, on_progress=on_progress):
        check.add(_refused(refused), f"cannot be replayed: {refused.reason}")
    # The replay reads by key; a comparison of whole tables is quicker with joins that read them once.
    connection.execute("SELECT set_config(name, 'on', true) FROM pg_settings WHERE name = ANY (%s)", (list(_JOINS),))
    for table in STATE_TABLES:
        rows, differing, differences = compare(connection, schema=schema, table=table, limit=SHOWN)
        check.counts[table] = rows
        for difference in differences:
            for where, what in _told(difference):
                check.add(where, what)
        check.fault_count += max(differing - len(differences), 0)
    return check


_JOINS: Final = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")


def _told(difference: Difference) -> Iterator[tuple[str, str]]:
    row = f"{difference.table}[{', '.join(difference.key)}]"
    if difference.live is None:
        yield row, "is missing; the log says that it exists"
    elif difference.replayed is None:
        yield row, "is not explained by any event"
    else:
        for column in difference.columns:
            live, replayed = _short(difference.live[column]), _short(difference.replayed.get(column, "absent"))
            yield f"{row}.{column}", f"is {live}; the log says {replayed}"


def _short(text: str) -> str:
    return text if len(text) <= _VALUE_CHARS else text[:_VALUE_CHARS] + "…"


def _refused(refused: Unreplayable) -> str:
    event = refused.event
    return _event(event.position, event.event_id, event.event_type, event.entity_type, event.entity_id)


def _event(position: int | None, event_id: object, event_type: str, entity_type: str, entity_id: str) -> str:
    place = "no position yet" if position is None else f"position {position}"
    return f"events[{event_id}] ({place}, {event_type} of {entity_type} {entity_id!r})"


def _position(first: int | None, last: int | None, event_id: object) -> str:
    if first is None:
        return f"events[{event_id}]"
    span = f"event_positions[{first}]" if first == last else f"event_positions[{first} to {last}]"
    return span if event_id is None else f"{span} (event {event_id})"


def _fetch(connection: Connection, name: LiteralString, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.flows", name), parameters)
        return cursor.fetchall()
