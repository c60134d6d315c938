"""A project whose history is old enough to be archived, and ways to archive, read, verify and attack it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from training.journal import SCHEMA, Journal
from workledger.flows import archive as archiving
from workledger.flows.archive import ArchiveReport
from workledger.flows.log_to_metrics import catch_up
from workledger.flows.mount import mounted
from workledger.flows.seal import seal_all
from workledger.flows.verify import (
    DATABASE_CHECKS,
    check_archives,
    check_database,
    check_metrics,
    check_seals,
)
from workledger.log import partitions, reader
from workledger.model import change
from workledger.model.clock import SystemClock
from workledger.postgres.archive_access import give_access
from workledger.postgres.connection import Connection, connect
from workledger.training.archive_access import FileAccess
from workledger.training.archive_files import FolderFiles

_THIS_MONTH = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
#: Later than whatever a journal records, and than now: the beginning of the month after the next.
LATER = (_THIS_MONTH + timedelta(days=62)).replace(day=1)


class Old(Journal):
    """A journal of last spring, and the archive it goes to."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.files = FolderFiles(folder)
        super().__init__(url)

    def connect(self) -> Connection:
        connection = connect(self.url, schema=SCHEMA)
        give_access(connection, FileAccess(lambda: f"file:{self.folder}"))
        return connection

    def at(self, month: int, day: int = 2) -> None:
        """Go on in another time."""
        self._now = datetime(2026, month, day, 12, tzinfo=UTC)

    def at_present(self) -> None:
        """Go on in this month, which no archiving drops: what it records itself waits there for its position."""
        self._now = datetime.now(UTC)

    def live(self, *months: int) -> None:
        """Work as it is recorded, with something of everything, in each of some months."""
        for month in months or (3, 4, 5):
            self.at(month)
            for n in range(2):
                self.workflow(f"w-{month}-{n}", subject="mia", tags=["a", 'b "c"'], metadata={"k": 1.50})
            self.talk(f"w-{month}-talk")
            self.event({"month": month, "rate": 1.0, "text": "ä\u2028 \\ \" ' ,\t", "nothing": None})
        self.settle()

    def talk(self, workflow_id: str) -> None:
        """A run with large values, a failed attempt, messages taken back, and feedback on all there is."""
        self.start(workflow_id, conversation_id=f"talk-{workflow_id}")
        self.record(change.start_conversation, conversation_id=f"talk-{workflow_id}", workflow_id=workflow_id)
        for n in range(3):
            message = {"role": "user", "content": f"{workflow_id} says {n} " * 300, "extra": n}
            same = {"conversation_id": f"talk-{workflow_id}", "workflow_id": workflow_id}
            self.record(change.add_message, message_id=f"{workflow_id}/m{n}", message=message, **same)
        self.record(change.remove_messages, conversation_id=f"talk-{workflow_id}", seqs=[2], workflow_id=workflow_id)
        self.execution(f"{workflow_id}/try", workflow_id, fails=True)
        self.execution(f"{workflow_id}/again", workflow_id, input={"big": "x" * 5000}, output=[workflow_id] * 900)
        judged = (
            {"workflow_id": workflow_id},
            {"execution_id": f"{workflow_id}/try"},
            {"message_id": f"{workflow_id}/m0"},
        )
        for n, of in enumerate(judged):
            self.record(change.record_feedback, feedback_id=f"{workflow_id}/f{n}", name="good", score=n / 3, **of)
        self.finish(workflow_id)

    def settle(self) -> None:
        """Bring every reader of the log to its head."""
        self.sequence()
        seal_all(self.connection, schema=SCHEMA)
        catch_up(self.connection)

    def archive(self, *, cutoff: datetime = LATER, **options: Any) -> ArchiveReport:
        with self.connect() as connection:
            return archiving.archive(
                connection,
                connect=self.connect,
                files=self.files,
                clock=SystemClock(),
                cutoff=cutoff,
                **{"lock_tries": 3, **options},
            )

    def faults(self) -> list[str]:
        """What everything that is checked finds, the archive included."""
        with self.connect() as connection, mounted(connection) as mount:
            checks = [check_archives(connection, mount)] if mount.files else []
            checks += check_database(connection, schema=SCHEMA, names=DATABASE_CHECKS)
            checks += [check_metrics(connection), check_seals(connection)]
            return [f"{check.name}: {fault}" for check in checks for fault in check.faults]

    @property
    def head(self) -> int:
        return reader.head(self.connection)[0]

    def months(self) -> list[str]:
        """The partitions there are."""
        return [one.name for one in partitions.partitions(self.connection)]

    def counts(self) -> dict[str, int]:
        """How many rows each table of the state and the log has."""
        tables = ("events", "workflows", "task_executions", "conversations", "messages", "feedback")
        return {table: self.sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables}


@pytest.fixture
def old(database_url: str, tmp_path: Path) -> Iterator[Old]:
    journal = Old(database_url, tmp_path / "archive")
    yield journal
    journal.close()


@pytest.fixture
def any_old(any_postgres_url: str, tmp_path: Path) -> Iterator[Old]:
    """The same, the test running once on each PostgreSQL."""
    journal = Old(any_postgres_url, tmp_path / "archive")
    yield journal
    journal.close()
