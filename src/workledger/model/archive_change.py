"""The changes that archiving makes: a file was recorded, a workflow left the state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from workledger.model.archived import ArchiveFile
from workledger.model.fact import Change, make_change

__all__ = ["archive_file", "archive_workflow"]


def archive_file(file: ArchiveFile, *, at: datetime) -> Change:
    """A file of the archive was verified and recorded (`log.archived`); the event's id is in the file's row."""
    told: dict[str, Any] = {
        "kind": file.kind,
        "source": file.source,
        "url": file.url,
        "sha256": file.sha256.hex(),
        "size_bytes": file.size_bytes,
        "rows": file.rows,
        "first_position": file.first_position,
        "last_position": file.last_position,
        "format_version": file.format_version,
    }
    return make_change(
        "log.archived", entity=("system", file.name), workflow_id=None, at=at, payload=told, event_id=file.event_id
    )


def archive_workflow(
    *,
    workflow_id: str,
    archive: str,
    conversations: Sequence[str],
    feedback: Sequence[str],
    first_position: int,
    last_position: int,
    at: datetime,
) -> Change:
    """A finished workflow left the state, with its executions and what is named here; `archive` has the rows.

    Its events are at positions from the first to the last.
    """
    payload = {
        "archive": archive,
        "conversations": list(conversations),
        "feedback": list(feedback),
        "first_position": first_position,
        "last_position": last_position,
    }
    return make_change(
        "workflow.archived", entity=("workflow", workflow_id), workflow_id=workflow_id, at=at, payload=payload
    )
