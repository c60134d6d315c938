"""Tables of Delta Lake. How far one has come is the version of our application's transaction in its log.

Delta does not itself refuse a version that is not above the last. What is refused is a commit on top of a version of
the table in which that transaction was another one; so the table that is asked is the one that is written with.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote

import pyarrow as pa
import pyarrow.dataset as ds

from workledger.errors import MissingExtra, WorkledgerError
from workledger.training.arrow import Batch
from workledger.training.clouds import cloud_error
from workledger.training.lake import LakeStore, Maintained, lake_schema, outrun
from workledger.training.records import SCHEMAS, RecordType

try:
    from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
except ImportError as error:
    raise MissingExtra("Delta Lake needs deltalake: pip install 'workledger[delta]'", extra="delta") from error

__all__ = ["open_delta"]

_APP: Final = "workledger"
_TARGET_BYTES: Final = 64 * 1024 * 1024
#: A row group is in memory until it is full.
_GROUP_ROWS: Final = 16_384


def open_delta(parts: SplitResult, *, options: dict[str, str]) -> LakeStore:
    """Give the store at `file:FOLDER` or in a bucket; `options` are `endpoint` and `region`."""
    scheme = parts.scheme.removeprefix("delta+")
    if scheme == "file":
        root = str(Path(unquote(parts.path)).expanduser().absolute())
        name = f"delta+file:{root}"
    else:
        root = f"{scheme}://{parts.netloc}/{unquote(parts.path).strip('/')}".rstrip("/")
        name = f"delta+{root}"
    storage = _storage(options)
    return LakeStore(name, tables=lambda record_type: _DeltaTable(f"{root}/{record_type}", record_type, storage, name))


class _DeltaTable:
    """The table of one record type."""

    def __init__(self, uri: str, record_type: RecordType, storage: dict[str, str], name: str) -> None:
        self._uri = uri
        self._record_type = record_type
        self._storage = storage
        self._name = name
        self._table: DeltaTable | None = None

    def position(self) -> int:
        """Give the version of our transaction."""
        self._table = self._opened()
        return 0 if self._table is None else self._table.transaction_version(_APP) or 0

    def append(self, batches: Iterable[Batch], *, last: int) -> None:
        """Add rows, with the position as the version of our transaction."""
        if self._table is None:
            self._table = self._created()
        if (self._table.transaction_version(_APP) or 0) >= last:
            raise outrun(self._name)
        self._write(self._table, batches, transactions=[Transaction(_APP, last)])

    def rows(self, first: int, last: int) -> Any:
        """Give rows by position."""
        table = self._table or self._opened()
        if table is None:
            return lake_schema(self._record_type).empty_table()
        position = ds.field("position")
        with self._explained():
            found = table.to_pyarrow_dataset().to_table(filter=(position >= first) & (position <= last))
        return found.sort_by("position")

    def replace(self, batches: Iterable[Batch], *, first: int, last: int) -> None:
        """Overwrite what the positions select."""
        table = self._opened() or self._created()
        self._write(table, batches, mode="overwrite", predicate=f"position >= {first} AND position <= {last}")
        self._table = self._opened()

    def maintain(self, *, keep: timedelta) -> Maintained:
        """Compact, then vacuum."""
        table = self._opened()
        if table is None:
            return Maintained()
        with self._explained():
            done = table.optimize.compact(target_size=_TARGET_BYTES, max_concurrent_tasks=1)
            hours = int(keep.total_seconds() // 3600)
            # What no commit names is left by who died, or is being written: it is removed when it is a day old.
            removed = table.vacuum(
                hours, dry_run=False, enforce_retention_duration=False, full=keep >= timedelta(days=1)
            )
            table.create_checkpoint()
            table.cleanup_metadata()
        return Maintained(joined=done["numFilesRemoved"], made=done["numFilesAdded"], removed=len(removed))

    def _opened(self) -> DeltaTable | None:
        with self._explained():
            try:
                return DeltaTable(self._uri, storage_options=self._storage)
            except TableNotFoundError:
                return None

    def _created(self) -> DeltaTable:
        with self._explained():
            return DeltaTable.create(
                self._uri,
                schema=lake_schema(self._record_type),
                mode="ignore",
                partition_by=["day"],
                name=f"workledger.{self._record_type}",
                description=SCHEMAS[self._record_type].title,
                storage_options=self._storage,
            )

    def _write(self, table: DeltaTable, batches: Iterable[Batch], **given: Any) -> None:
        properties = CommitProperties(app_transactions=given.pop("transactions", None))
        options: dict[str, Any] = {"mode": "append", "schema_mode": "merge", **given}
        with self._explained():
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(lake_schema(self._record_type), batches),
                **options,
                target_file_size=_TARGET_BYTES,
                writer_properties=WriterProperties(
                    compression="ZSTD", compression_level=3, max_row_group_size=_GROUP_ROWS
                ),
                commit_properties=properties,
            )

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except WorkledgerError:
            raise
        except CommitFailedError as error:
            raise outrun(self._name) from error
        except (DeltaError, OSError, ValueError) as error:
            raise cloud_error(error, name=self._name) from error


def _storage(options: dict[str, str]) -> dict[str, str]:
    """Give what the library wants to know beyond its own reading of the environment."""
    endpoint = options.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL")
    found: dict[str, str] = {}
    if endpoint:
        found |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}
    if region := options.get("region"):
        found["AWS_REGION"] = region
    return found
