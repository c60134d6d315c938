"""Archived state rows and large values as Parquet: one row a row, one row a value.

State rows keep the columns and names of their tables. JSON, arrays and exact decimals are text, instants are UTC. A
large value is its JSON under the digest that names it, sorted by digest, so that one is found without reading the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO, Final, TypeAlias

from workledger.errors import MissingExtra, StoreCorrupted
from workledger.model.payload import Blob, blob_json
from workledger.training.archive_files import HashingFile
from workledger.training.arrow_csv import read_csv

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("the archive needs pyarrow: pip install 'workledger[parquet]'", extra="parquet") from error

__all__ = ["PayloadFile", "PayloadFileWriter", "TableFile", "TableFileWriter", "same_rows"]

# pyarrow comes without types.
_Table: TypeAlias = Any

FORMAT_VERSION: Final = 1
_GROUP_ROWS: Final = 16_384
_GROUP_BYTES: Final = 64 * 1024 * 1024
_TYPES: Final[Mapping[str, Any]] = {
    "smallint": pa.int32(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
}
_PAYLOADS: Final = pa.schema(
    [
        pa.field("digest", pa.string(), nullable=False),
        pa.field("json", pa.string(), nullable=False),
    ]
)


class TableFileWriter:
    """Writes rows of a table; `columns` are their names and PostgreSQL's names of their types, in order."""

    def __init__(self, sink: HashingFile, *, table: str, columns: Sequence[tuple[str, str]]) -> None:
        self._schema = pa.schema([pa.field(name, _TYPES.get(kind, pa.string())) for name, kind in columns])
        self._parquet = _writer(sink, self._schema, kind=table)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self.rows = 0

    def write(self, row: bytes) -> None:
        """Add a row: a line of CSV, as `COPY … (FORMAT csv)` gives it."""
        self._waiting.append(row)
        self._waiting_bytes += len(row)
        if len(self._waiting) >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write the last rows and the footer. The sink is its owner's to close."""
        self._write_group()
        self._parquet.close()

    def give_up(self) -> None:
        """Leave the file as it is: it will never be one."""
        self._parquet.is_open = False  # or pyarrow would write a footer when it is collected

    def _write_group(self) -> None:
        if self._waiting:
            table = read_csv(b"".join(self._waiting), self._schema)
            self._waiting.clear()
            self._waiting_bytes = 0
            self.rows += table.num_rows
            self._parquet.write_table(table, row_group_size=table.num_rows)


class PayloadFileWriter:
    """Writes large values, in the order of their digests."""

    def __init__(self, sink: HashingFile) -> None:
        self._parquet = _writer(sink, _PAYLOADS, kind="payloads")
        self.digests: list[bytes] = []

    def write(self, blobs: Sequence[Blob]) -> None:
        """Add values as one row group. Raises `StoreCorrupted` for one that is not what its digest says."""
        texts = pa.array([blob_json(blob) for blob in blobs], pa.binary()).cast(pa.string())
        digests = pa.array([blob.digest.hex() for blob in blobs])
        table = pa.Table.from_arrays([digests, texts], schema=_PAYLOADS)
        self._parquet.write_table(table, row_group_size=table.num_rows)
        self.digests += [blob.digest for blob in blobs]

    def close(self) -> None:
        """Write the footer. The sink is its owner's to close."""
        self._parquet.close()

    def give_up(self) -> None:
        """Leave the file as it is: it will never be one."""
        self._parquet.is_open = False


class TableFile:
    """The rows of one file. `location` is what errors name. The file is its owner's to close."""

    def __init__(self, file: BinaryIO, *, location: str) -> None:
        self._location = location
        with _reading(location):
            self._parquet = pq.ParquetFile(file, page_checksum_verification=True)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self._parquet.schema_arrow.names)

    def tables(self) -> Iterator[_Table]:
        """Give the rows as Arrow tables, a row group at a time."""
        for number in range(self._parquet.num_row_groups):
            with _reading(self._location):
                yield self._parquet.read_row_group(number, use_threads=False)

    def rows(self, column: str, values: Iterable[str]) -> list[dict[str, Any]]:
        """Give the rows that have one of these values in a column."""
        wanted = pa.array(sorted(set(values)), pa.string())
        found: list[dict[str, Any]] = []
        for number in range(self._parquet.num_row_groups):
            with _reading(self._location):
                if not _can_have(self._parquet, number, column, wanted):
                    continue
                table = self._parquet.read_row_group(number, use_threads=False)
            found += table.filter(pc.call_function("is_in", [table[column]], pc.SetLookupOptions(wanted))).to_pylist()
        return found


class PayloadFile(TableFile):
    """The large values of one file."""

    def read(self, digests: Iterable[bytes]) -> dict[bytes, Blob]:
        """Give values by digest; one that is not here is left out."""
        found = self.rows("digest", (digest.hex() for digest in digests))
        return {blob.digest: blob for blob in map(_blob, found)}

    def blobs(self) -> Iterator[Blob]:
        """Give every value, in the order of the digests."""
        for table in self.tables():
            yield from map(_blob, table.to_pylist())

    def checked(self) -> Iterator[Blob]:
        """Give every value; raises `StoreCorrupted` for one that is not what its digest says."""
        for blob in self.blobs():
            if hashlib.sha256(blob.body).digest() != blob.digest:
                raise StoreCorrupted(
                    f"{self._location}: the value {blob.digest.hex()} does not have the content its digest names",
                    location=self._location,
                )
            yield blob


def same_rows(file: TableFile, lines: Iterator[bytes]) -> bool:
    """Say whether a file has just the rows that these lines of CSV are, in their order."""
    for table in file.tables():
        data = b"".join(islice(lines, table.num_rows))
        if not data or not read_csv(data, table.schema).equals(table):
            return False
    return next(lines, None) is None


def _writer(sink: HashingFile, schema: Any, *, kind: str) -> Any:
    parquet = pq.ParquetWriter(
        sink, schema, compression="zstd", compression_level=3, write_page_checksum=True, store_schema=False
    )
    parquet.add_key_value_metadata({"workledger.archive": kind, "workledger.format_version": str(FORMAT_VERSION)})
    return parquet


def _can_have(parquet: Any, group: int, column: str, wanted: Any) -> bool:
    """Say whether a row group can have one of the sorted values, by its statistics."""
    number = parquet.schema_arrow.get_field_index(column)
    statistics = parquet.metadata.row_group(group).column(number).statistics
    if not len(wanted):
        return False
    if statistics is None or not statistics.has_min_max:
        return True
    return any(statistics.min <= value <= statistics.max for value in wanted.to_pylist())


def _blob(row: dict[str, Any]) -> Blob:
    data = row["json"].encode()
    return Blob(digest=bytes.fromhex(row["digest"]), codec="json", size_bytes=len(data), body=data)


@contextmanager
def _reading(location: str) -> Generator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise StoreCorrupted(f"{location} cannot be read as an archive: {error}", location=location) from error
