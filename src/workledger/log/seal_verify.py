"""Verifying seals: is the log what was sealed, and where is it not?

Every event of a sealed range is hashed again and compared with the digest that was sealed, so that an alteration is
located to the event; the digests are checked against the root of their seal, the seals against each other, the
signatures against the keys, and all of it against checkpoints that were kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import psycopg
from msgspec.structs import replace

from workledger.errors import InvalidInput
from workledger.log import seal
from workledger.log.merkle import HASH_BYTES, Peaks, tree_root
from workledger.log.seal import Seal
from workledger.log.seal_compare import compare, hash_here, hash_there
from workledger.log.seal_keys import endorsement_text, listed_keys
from workledger.log.seal_notes import Checkpoint, SealKey, SignedNote, parse_checkpoint, parse_note
from workledger.log.seal_report import SHOWN, SealReport
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["verify_seals"]

_CHUNK: Final = 65_536


def verify_seals(
    connection: Connection,
    *,
    keys: Sequence[SealKey] = (),
    checkpoints: Mapping[str, str] | None = None,
    thorough: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> SealReport:
    """Check everything that is sealed; memory does not grow with the log.

    `keys` are those to trust (and the ones they endorsed); without any, those that the database lists are believed.
    `checkpoints` are signed notes by the name of where they were kept. `thorough` hashes here instead of in PostgreSQL:
    slower, but the server then only hands over columns. `on_progress` hears how many events have been checked.
    """
    report = SealReport()
    trust = _Trust(connection, keys, report)
    chain = _Chain(report, trust, _read_checkpoints(checkpoints or {}, trust, report))
    hashed = hash_here if thorough else hash_there
    for chunk in _chunks(seal.iterate(connection)):
        first = chunk[0].first_position
        # Counted by the digests, which are here: a seal may say anything.
        last = first + sum(len(one.leaves) for one in chunk) // HASH_BYTES - 1
        leaves = hashed(connection, first=first, last=last, meanwhile=partial(chain.check_all, chunk))
        compare(connection, chunk, leaves, report, doubtful=chain.doubtful)
        report.events += sum(one.size for one in chunk)
        if on_progress is not None:
            on_progress(report.events)
    chain.finish()
    _check_surroundings(connection, report, last_position=chain.last_position)
    return report


# -- seals and each other ---------------------------------------------------------------------------------------


class _Chain:
    """What each seal says about itself and about the one before."""

    def __init__(self, report: SealReport, trust: _Trust, checkpoints: dict[int, list[_Kept]]) -> None:
        self._report = report
        self._trust = trust
        self._checkpoints = checkpoints
        self._before: Seal | None = None
        self._peaks = Peaks()
        self.last_position = 0
        #: Seals whose digests do not have the root that the seal says.
        self.doubtful: set[int] = set()

    def check_all(self, seals: Sequence[Seal]) -> None:
        """Check seals, the next ones in order."""
        for one in seals:
            self._check(one)

    def _check(self, one: Seal) -> None:
        self._report.seals += 1
        self._check_link(one)
        self._check_itself(one)
        self._check_tree(one)
        self._trust.check(one, after_signed=self._before is not None and self._before.key_id is not None)
        self._before, self.last_position = one, one.last_position

    def finish(self) -> None:
        """Check what can only be said at the end."""
        if self._before is not None:
            self._trust.check_newest(self._before)
        for kept in (kept for size in self._checkpoints for kept in self._checkpoints[size]):
            self._report.add(
                "checkpoint.beyond",
                kept.name,
                f"the log had {kept.checkpoint.size} seals then, and has {self._report.seals} now: some were removed",
            )

    def _check_link(self, one: Seal) -> None:
        before = self._before
        number = 1 if before is None else before.number + 1
        position = 1 if before is None else before.last_position + 1
        if one.number != number:
            self._report.add("seal.missing", _place(number), f"missing; the next seal there is has number {one.number}")
        elif one.first_position != position:
            self._report.add("seal.rewritten", _place(one.number), f"begins at {one.first_position}, not at {position}")
        elif one.previous != (seal.NOTHING_BEFORE if before is None else before.hash):
            self._report.add(
                "seal.rewritten",
                _place(one.number),
                f"does not follow seal {number - 1}: one of the two was rewritten",
            )
        elif before is not None and one.origin != before.origin:
            self._report.add("seal.rewritten", _place(one.number), f"is of the log {one.origin!r}")

    def _check_itself(self, one: Seal) -> None:
        if one.hash != one.body_hash:
            self._report.add("seal.rewritten", _place(one.number), "does not have the hash of what it says")
        root = tree_root(one.leaves)
        if root != one.root:
            self._report.add("seal.rewritten", _place(one.number), "its digests do not have the root that it says")
        if root != one.root and replace(one, root=root).body_hash != one.hash:
            self.doubtful.add(one.number)

    def _check_tree(self, one: Seal) -> None:
        root = one.tree_root
        if one.number == self._peaks.size + 1:
            self._peaks.append(one.body_hash)
            root = self._peaks.root()
            if (one.tree_root, one.peaks) != (root, self._peaks.data):
                self._report.add("seal.rewritten", _place(one.number), "the tree over the seals is not what it says")
        # Go on from what the seal says, so that one fault is not reported for every seal after it.
        self._peaks = _stored_peaks(one)
        for kept in self._checkpoints.pop(one.number, ()):
            if kept.checkpoint != Checkpoint(origin=one.origin, size=one.number, root=root):
                self._report.add(
                    "checkpoint.differs",
                    kept.name,
                    f"the log was another one when it had {one.number} seals (up to position {one.last_position}): "
                    "seals up to there were rewritten since",
                )


def _stored_peaks(one: Seal) -> Peaks:
    wanted = one.number.bit_count() * HASH_BYTES
    return Peaks(size=one.number, data=(one.peaks + bytes(wanted))[:wanted])


class _Trust:
    """Which keys are believed, and what they signed."""

    def __init__(self, connection: Connection, given: Sequence[SealKey], report: SealReport) -> None:
        listed = listed_keys(connection)
        self._report = report
        self._given = bool(given)
        self._listed = {one.key.key_id: one.key for one in listed}
        self._trusted = {key.key_id: key for key in given} if given else dict(self._listed)
        for one in listed:
            by = self._trusted.get(one.endorsed_by or "")
            if by is not None and _holds(by, endorsement_text(one.key), one.endorsement or b""):
                self._trusted.setdefault(one.key.key_id, one.key)
        report.trusted_keys = len(self._trusted)

    def check(self, one: Seal, *, after_signed: bool) -> None:
        """Check the signature of a seal."""
        if one.key_id is None or one.signature is None:
            if after_signed:
                self._report.add("seal.unsigned", _place(one.number), "is not signed, although the one before is")
            return
        self._report.signed += 1
        key = self._trusted.get(one.key_id)
        if key is None:
            self._report.add("seal.untrusted", _place(one.number), f"is signed by {one.key_id}, a key you do not trust")
        elif not _holds(key, one.checkpoint.text, one.signature):
            self._report.add("seal.forged", _place(one.number), f"has a signature that {one.key_id} did not make")

    def check_newest(self, newest: Seal) -> None:
        """With keys of one's own, the newest seal must be signed: its signature is over all seals before it."""
        if self._given and newest.key_id is None:
            self._report.add("seal.unsigned", _place(newest.number), "is the newest, and none of your keys signed it")

    def check_note(self, name: str, note: SignedNote) -> None:
        """Check the signatures of a note: one of a trusted key must hold, and none may be forged."""
        known = [
            _holds(key, note.text, signature)
            for key_name, key_id, signature in note.signatures
            if (key := self._trusted.get(key_id)) is not None and key.name == key_name
        ]
        if not known or not all(known):
            self._report.add("checkpoint.untrusted", name, "is not signed by a key you trust")


def _holds(key: SealKey, text: str, signature: bytes) -> bool:
    from workledger.log.keys import signature_holds  # noqa: PLC0415  needs the extra, and only signed seals do

    return signature_holds(key, text, signature)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A checkpoint and where it was kept."""

    name: str
    checkpoint: Checkpoint


def _read_checkpoints(notes: Mapping[str, str], trust: _Trust, report: SealReport) -> dict[int, list[_Kept]]:
    kept: dict[int, list[_Kept]] = {}
    for name, data in notes.items():
        report.checkpoints += 1
        try:
            note = parse_note(data)
            checkpoint = parse_checkpoint(note.text)
        except InvalidInput as error:
            report.add("checkpoint.unreadable", name, error.message)
        else:
            trust.check_note(name, note)
            kept.setdefault(checkpoint.size, []).append(_Kept(name, checkpoint))
    return kept


def _place(number: int) -> str:
    return f"seals[{number}]"


def _chunks(seals: Iterator[Seal]) -> Iterator[list[Seal]]:
    """Put seals together whose positions follow each other, so that their events are read at once."""
    chunk: list[Seal] = []
    for one in seals:
        together = bool(chunk) and chunk[-1].last_position + 1 == one.first_position
        if chunk and (not together or one.last_position - chunk[0].first_position >= _CHUNK):
            yield chunk
            chunk = []
        chunk.append(one)
    if chunk:
        yield chunk


# -- around the seals -------------------------------------------------------------------------------------------


def _check_surroundings(connection: Connection, report: SealReport, *, last_position: int) -> None:
    report.unsealed = max(seal.unsealed(connection, after=last_position).size, 0)
    ((stray,),) = _fetch(connection, "count_stray", ())
    if stray or report.findings:
        for event_id, event_type, entity_type, entity_id in _fetch(connection, "stray_events", (SHOWN,)):
            what = f"{event_type} of {entity_type} {entity_id!r} has no position and does not wait for one"
            report.add("event.inserted", f"events[{event_id}]", what)
    for (table,) in _fetch(connection, "guards_off", ()):
        report.add("guard.off", table, "could be changed: a trigger that refuses it is missing or off")
    ((report.erased, unexplained),) = _fetch(connection, "erasures", (SHOWN,))
    for event_id in unexplained:
        report.add(
            "erasure.unexplained", f"erased_payloads[{event_id}]", "no event of the log says who erased this payload"
        )


def _fetch(connection: Connection, name: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", name), parameters)
        return cursor.fetchall()
