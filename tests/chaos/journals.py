"""What the load programs wrote down, held against the store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import workledger
from workledger.flows.verify import check_events, check_log, check_state, one_moment
from workledger.log.sequencer import sequence

__all__ = ["assert_nothing_lost_or_doubled", "read_journals"]


def read_journals(paths: Iterable[Path]) -> tuple[dict[str, list[str]], set[str]]:
    """For each workflow the changes that were made, in order; and those of all that were acknowledged."""
    made: dict[str, list[str]] = {}
    acknowledged: set[str] = set()
    for path in paths:
        for line in path.read_text().splitlines():
            mark, event_id, workflow_id = line.split()
            if mark == "+":
                made.setdefault(workflow_id, []).append(event_id)
            else:
                acknowledged.add(event_id)
    return made, acknowledged


def assert_nothing_lost_or_doubled(url: str, home: Path, made: dict[str, list[str]], acknowledged: set[str]) -> None:
    """Every acknowledged change is in the log once, each workflow's changes in their order; the state is the log's."""
    with workledger.open(url, home=home) as ledger, ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        rows = connection.execute(
            "SELECT event_id::text, position FROM events JOIN event_positions USING (event_id) ORDER BY position"
        ).fetchall()
        positions = dict(rows)
        assert len(rows) == len(positions) == connection.execute("SELECT count(*) FROM events").fetchone()[0]
        lost = acknowledged - positions.keys()
        assert not lost, f"{len(lost)} acknowledged changes lost: {sorted(lost)[:5]}"
        for workflow_id, changes in made.items():
            there = [positions[event_id] for event_id in changes if event_id in positions]
            assert there == sorted(there), f"the changes of {workflow_id} are out of order in the log"
        with one_moment(connection):
            checks = [check_state(connection, schema="workledger"), check_log(connection), check_events(connection)]
        assert [str(fault) for check in checks for fault in check.faults] == []
