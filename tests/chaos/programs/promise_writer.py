"""Record a little of everything until so many changes are acknowledged; made to be killed and started again.

promise_writer.py URL NAME CHANGES FOLDER

What is about to be recorded is written down first, and again when it was acknowledged. Started again, it sends what it
was about to record once more: nobody told it whether that was committed.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
from functools import partial
from pathlib import Path

from support.changes import complete, done, make, start, task
from workledger.flows.record import Recorder
from workledger.model.change import Failure
from workledger.model.ids import new_id
from workledger.postgres.connection import connect

BATCH = 100
FAILURE = Failure(error_type="ValueError", error="no", error_traceback="Traceback")


def a_workflow(chance: random.Random, name: str) -> list:
    """One workflow with attempts, a conversation, judgements and facts of its own; it may fail, or stay open."""
    workflow_id, conversation_id = new_id(), new_id()
    here = {"workflow_id": workflow_id}
    changes = [
        start(**here, input={"by": name}, conversation_id=conversation_id, subject=f"user-{chance.randrange(50)}"),
        make("start_conversation", conversation_id=conversation_id, **here),
    ]
    for n in range(chance.randrange(4)):
        execution_id = new_id()
        output = "x" * 6000 + str(chance.randrange(10)) if chance.random() < 0.1 else {"n": n}
        changes += [
            task(**here, execution_id=execution_id, task_name=f"t{n}", input=[n]),
            make("fail_execution", **here, execution_id=execution_id, failure=FAILURE)
            if chance.random() < 0.2
            else done(**here, execution_id=execution_id, output=output, execution_time_ms=chance.random() * 100),
            make("progress_workflow", **here, current_step=f"t{n}", state_data={"n": n}),
        ]
    for role in ("user", "assistant"):
        message = {"role": role, "content": f"{role} says \u0000 {chance.random()}"}
        changes.append(
            make("add_message", conversation_id=conversation_id, message_id=new_id(), message=message, **here)
        )
    changes.append(make("record_event", event_type="cache.hit", entity_type="cache", entity_id=name, **here))
    end = chance.random()
    if end < 0.7:
        changes.append(complete(**here, output={"ok": True}))
        changes.append(make("record_feedback", feedback_id=new_id(), name="good", score=chance.random(), **here))
    elif end < 0.9:
        changes.append(make("fail_workflow", **here, failure=FAILURE))
    return changes


def record(recorder: Recorder, changes: list, journal: Path, intent: Path) -> int:
    """Record what was written down, and write down that it was acknowledged."""
    recorder.record_all(changes)
    with journal.open("ab", buffering=0) as file:
        file.write("".join(f"{one.event_id} {one.workflow_id}\n" for one in changes).encode())
    intent.unlink()
    return len(changes)


def main(url: str, name: str, wanted: int, folder: Path) -> None:
    journal, intent = folder / f"{name}.journal", folder / f"{name}.intent"
    chance = random.Random(os.getpid())
    recorder = Recorder(partial(connect, url, recording=True))
    written = journal.read_text().count("\n") if journal.exists() else 0
    if intent.exists():
        written += record(recorder, pickle.loads(intent.read_bytes()), journal, intent)
    while written < wanted:
        changes: list = []
        while len(changes) < min(BATCH, wanted - written):
            changes += a_workflow(chance, name)
        draft = intent.with_suffix(".draft")
        draft.write_bytes(pickle.dumps(changes))
        draft.replace(intent)
        written += record(recorder, changes, journal, intent)
    recorder.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
