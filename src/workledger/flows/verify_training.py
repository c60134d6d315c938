"""Is every position in the training store once, and does every line say what the log says (promise 5)?

The lines of each range are made again from the log and compared with the files: by their digests, and line by line
where those differ. So nothing that a file, its manifest entry and their digests agree upon is believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from workledger.errors import StoreCorrupted
from workledger.flows._line_diff import differences, lines_of
from workledger.log.reader import head
from workledger.postgres.connection import Connection
from workledger.training import formats
from workledger.training.deriver import Deriver
from workledger.training.log_lines import LogLines
from workledger.training.manifest import Entry, entry_path, tiling
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.shard_store import ShardReader
from workledger.training.shards import ShardFile, range_of

__all__ = ["Finding", "TrainingReport", "verify_training"]

#: So many findings are kept; all are counted.
SHOWN: Final = 100
_PAGE: Final = 2000
_CHUNK_BYTES: Final = 1024 * 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as the log says. `kind`: manifest, file, line, count, log, unlisted, schema or head."""

    kind: str
    location: str
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}"


@dataclass(slots=True, kw_only=True)
class TrainingReport:
    """What was compared, with counts, and what was found. The lag is no fault; of many findings the first are kept."""

    head: int = 0
    position: int = 0
    ranges: int = 0
    files: int = 0
    size_bytes: int = 0
    rows: dict[RecordType, int] = field(default_factory=lambda: dict.fromkeys(RecordType, 0))
    findings: list[Finding] = field(default_factory=list[Finding])
    finding_count: int = 0

    @property
    def lag(self) -> int:
        """How many positions of the log are not landed yet."""
        return max(self.head - self.position, 0)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.finding_count

    def add(self, kind: str, location: str, message: str) -> None:
        """Add a finding."""
        self.finding_count += 1
        if len(self.findings) < SHOWN:
            self.findings.append(Finding(kind=kind, location=location, message=message))


def verify_training(
    connection: Connection, store: ShardReader, *, on_progress: Progress | None = None
) -> TrainingReport:
    """Compare a training store with the log, up to where the store had come when this began.

    Safe while others record and land. `on_progress` hears the position reached and the last one.
    """
    ranges, gaps = tiling(store.all_ranges())
    report = TrainingReport(head=head(connection)[0], position=ranges[-1][1] if ranges else 0)
    for gap in gaps:
        report.add("manifest", str(gap.location), gap.message)
    checker = _Checker(connection, store, report)
    for first, last in ranges:
        checker.check_range(first, last)
        if on_progress is not None:
            on_progress(last, report.position)
    checker.check_counts()
    checker.check_schemas()
    checker.check_unlisted()
    return report


class _Checker:
    def __init__(self, connection: Connection, store: ShardReader, report: TrainingReport) -> None:
        self._log = LogLines(connection)
        self._deriver = Deriver(self._log)
        self._store = store
        self._report = report

    def check_range(self, first: int, last: int) -> None:
        try:
            entry = self._store.entry(first, last)
        except StoreCorrupted as error:
            self._report.add("manifest", str(error.location), error.message)
            return
        self._report.ranges += 1
        for record_type in RecordType:
            self._report.rows[record_type] += entry.rows.get(record_type, 0)
        if self._check_entry(entry, first, last):
            self._check_files(entry)

    def check_counts(self) -> None:
        """Compare with counts that SQL makes of the log, without our own reading of it."""
        counted = self._log.count(after=0, upto=self._report.position)
        for record_type, rows in self._report.rows.items():
            if rows != counted[record_type]:
                self._report.add(
                    "count",
                    str(record_type),
                    f"the manifest adds up to {rows} lines, the log to {counted[record_type]}",
                )

    def check_schemas(self) -> None:
        """Compare the published schemas with the ones the lines were written by."""
        for record_type, schema in SCHEMAS.items() if self._report.ranges else ():
            path = f"_schema/{record_type}.json"
            published = self._store.document(path)
            if published is None:
                self._report.add("schema", path, "is missing; the next writer writes it again")
            elif published != schema.published():
                self._report.add("schema", path, "is not the schema of the lines; the next writer writes it again")

    def check_unlisted(self) -> None:
        """Files of positions that are landed, beside those of the manifest, would be read twice by whoever globs."""
        listed, unreadable = self._listed()
        for name in self._store.paths():
            found = range_of(name.rpartition("/")[2])
            if name.startswith("_manifest/") or found is None or found in unreadable or name in listed:
                continue
            if found[0] <= self._report.position:
                self._report.add("unlisted", name, "belongs to no range of the manifest; move it away")

    def _listed(self) -> tuple[set[str], set[tuple[int, int]]]:
        """Give the files that the manifest names, and the ranges of which it cannot be said."""
        listed: set[str] = set()
        unreadable: set[tuple[int, int]] = set()
        entries = [path.removeprefix("_manifest/") for path in self._store.paths() if path.startswith("_manifest/")]
        for found in filter(None, map(range_of, entries)):
            try:
                listed |= {file.path for file in self._store.entry(*found).files}
            except StoreCorrupted:
                unreadable.add(found)
        return listed, unreadable

    def _check_entry(self, entry: Entry, first: int, last: int) -> bool:
        path = entry_path(first, last)
        if (entry.first, entry.last) != (first, last):
            self._report.add("manifest", path, f"says that it is about {entry.first} to {entry.last}")
            return False
        event_id = self._log.event_id(last)
        if event_id is None:
            self._report.add("head", path, f"the log has no position {last}; it ends at {self._report.head}")
            return False
        if event_id != entry.last_event_id:
            self._report.add(
                "manifest", path, f"the event at {last} is {entry.last_event_id}; in the log it is {event_id}"
            )
        return True

    def _check_files(self, entry: Entry) -> None:
        try:
            expected = _Expected(entry, self._derived(entry, self._deriver))
        except StoreCorrupted as error:
            self._report.add("log", str(error.location), error.message)
            return
        path = entry_path(entry.first, entry.last)
        for record_type in RecordType:
            if entry.rows.get(record_type) != expected.rows[record_type]:
                told = f"says {entry.rows.get(record_type)} {record_type}, the log gives {expected.rows[record_type]}"
                self._report.add("manifest", path, told)
        for missing in sorted(expected.digests.keys() - {(file.record_type, file.format) for file in entry.files}):
            self._report.add("manifest", path, f"names no {missing[1]} file of {missing[0]}")
        for file in entry.files:
            self._check_file(entry, file, expected.digests.get((file.record_type, file.format)))

    def _check_file(self, entry: Entry, file: ShardFile, expected: _Digest | None) -> None:
        self._report.files += 1
        try:
            found = _Digest.of_file(self._store, file)
        except StoreCorrupted as error:
            self._report.add("file", file.path, error.message)
            return
        self._report.size_bytes += found.size_bytes
        wanted = expected or _Digest()
        if found.sha256 != wanted.sha256:
            self._name_lines(entry, file)
        elif (found.sha256, found.size_bytes, wanted.rows) != (file.sha256, file.bytes, file.rows):
            self._report.add(
                "manifest",
                entry_path(entry.first, entry.last),
                f"says {file.rows} lines, {file.bytes} bytes and sha256 {file.sha256} of {file.path}, which has "
                f"{wanted.rows}, {found.size_bytes} and {found.sha256}",
            )

    def _name_lines(self, entry: Entry, file: ShardFile) -> None:
        """Say which lines of a file are not what the log gives; a file that has no lines is named whole."""
        if file.format == "parquet":
            self._report.add("file", file.path, "is not what the log gives")
            return
        before = self._report.finding_count
        with self._store.open(file) as shard:
            for number, position, what in differences(
                lines_of(shard, file.format),
                self._expected_lines(entry, file),
                record_type=file.record_type,
                file_format=file.format,
            ):
                where = file.path if number is None else f"{file.path}:{number}"
                line = "the line" if position is None else f"the line of position {position}"
                self._report.add("line", where, f"{line} {what}")
        if self._report.finding_count == before:
            self._report.add("file", file.path, "is not what the log gives")

    def _expected_lines(self, entry: Entry, file: ShardFile) -> Iterator[bytes]:
        kept: list[bytes] = []
        sink = _Collecting(kept)
        writer = formats.named(file.format).open(sink, SCHEMAS[file.record_type])
        again = Deriver(self._log)
        for record_type, lines in self._derived(entry, again):
            if record_type is file.record_type:
                for line in lines:
                    writer.write([line])
                    yield from kept
                    kept.clear()
        yield from kept

    def _derived(self, entry: Entry, deriver: Deriver) -> Iterator[tuple[RecordType, list[bytes]]]:
        for page in self._log.iterate(after=entry.first - 1, upto=entry.last, page=_PAGE):
            yield from deriver.derive(page)


class _Expected:
    """What the files of a range have to be, by the log."""

    def __init__(self, entry: Entry, derived: Iterator[tuple[RecordType, list[bytes]]]) -> None:
        self.rows = dict.fromkeys(RecordType, 0)
        self.digests: dict[tuple[RecordType, str], _Digest] = {}
        used = [formats.named(name) for name in sorted({file.format for file in entry.files})]
        writers: dict[tuple[RecordType, str], formats.FormatWriter] = {}
        for record_type, lines in derived:
            self.rows[record_type] += len(lines)
            for form in used:
                key = (record_type, form.name)
                if key not in writers:
                    self.digests[key] = _Digest()
                    writers[key] = form.open(self.digests[key], SCHEMAS[record_type])
                writers[key].write(lines)
                self.digests[key].rows += len(lines)
        for writer in writers.values():
            writer.close()


class _Digest:
    """A sink that keeps nothing but the digest."""

    def __init__(self) -> None:
        self.rows = 0
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()

    @classmethod
    def of_file(cls, store: ShardReader, file: ShardFile) -> _Digest:
        digest = cls()
        with store.open(file) as shard:
            while chunk := shard.read(_CHUNK_BYTES):
                digest.write(chunk)
        return digest

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def write(self, data: bytes, /) -> None:
        self._sha256.update(data)
        self.size_bytes += len(data)


class _Collecting:
    def __init__(self, kept: list[bytes]) -> None:
        self._kept = kept

    def write(self, data: bytes, /) -> None:
        self._kept.append(data)
