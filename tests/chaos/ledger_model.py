"""What the ledger promises, in plain Python: the legal transitions, and the rows that come of them.

Written from the words of the design, not from the SQL: the state machine test holds the two against each other.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import orjson

from workledger.errors import Conflict, InvalidTransition, NotFound, Superseded, WorkflowCancelled
from workledger.model.change import Change

OPEN = {"pending", "running"}
TERMINAL = {"completed", "failed", "cancelled"}
ENDS = {"completed": {"running"}, "failed": OPEN, "cancelled": OPEN}
STEPS = {
    "progressed": {"running"},
    "cancel_requested": OPEN,
    "resumed": {"pending", "running", "failed", "cancelled"},
    **ENDS,
}


@dataclass
class Applied:
    """An answer: written now, or recognised as written before."""

    now: bool
    seq: int | None = None


@dataclass
class Model:
    """The state, as dictionaries of rows by id; and the ids of the events, in the order of their application."""

    workflows: dict[str, dict] = field(default_factory=dict)
    executions: dict[str, dict] = field(default_factory=dict)
    conversations: dict[str, dict] = field(default_factory=dict)
    messages: dict[str, dict] = field(default_factory=dict)
    feedback: dict[str, dict] = field(default_factory=dict)
    events: dict[str, Change] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def apply(self, change: Change) -> Applied | type[Exception]:
        """Apply a change; gives its answer, or the class of the error that refuses it."""
        before = self.events.get(change.event_id)
        if before is not None:
            same = (before.event_type, before.entity_id, before.payload) == (
                change.event_type,
                change.entity_id,
                change.payload,
            )
            return Applied(now=False, seq=self.seqs.get(change.event_id)) if same else Conflict
        family, _, verb = change.event_type.partition(".")
        refusal = getattr(self, f"_{family}")(verb, change, orjson.loads(change.payload))
        if refusal is not None:
            return refusal
        self.events[change.event_id] = change
        return Applied(now=True, seq=self.seqs.get(change.event_id))

    # -- workflows ----------------------------------------------------------------------------------------------

    def _workflow(self, verb, change, payload):
        row = self.workflows.get(change.entity_id)
        if verb in {"created", "started"}:
            return self._begin(verb, change, payload, row)
        if row is None:
            return NotFound
        wrong_attempt = payload.get("attempt", row["attempt"]) != row["attempt"]
        if wrong_attempt:
            return Superseded
        if row["status"] not in STEPS[verb]:
            return InvalidTransition
        getattr(self, f"_{verb}")(row, change, payload)
        return None

    def _begin(self, verb, change, payload, row):
        if row is None:
            self.workflows[change.entity_id] = {
                "status": "pending" if verb == "created" else "running",
                "name": payload["name"],
                "input_data": payload.get("input"),
                "output_data": None,
                "error": None,
                "error_type": None,
                "attempt": 1,
                "worker_id": payload.get("worker_id"),
                "current_step": None,
                "total_steps": 0,
                "completed_steps": 0,
                "state_data": {},
                "cancel_requested_at": None,
                "created_at": change.created_at,
                "started_at": change.created_at if verb == "started" else None,
                "completed_at": None,
                "execution_time_ms": None,
            }
            return None
        if row["status"] != "pending" or verb == "created":
            return Conflict
        row |= {"status": "running", "started_at": change.created_at, "worker_id": payload.get("worker_id")}
        return None

    def _progressed(self, row, change, payload):
        row["state_data"] = payload.get("state_data", row["state_data"])
        row["current_step"] = payload.get("current_step", row["current_step"])
        row["total_steps"] = payload.get("total_steps", row["total_steps"])

    def _cancel_requested(self, row, change, payload):
        row["cancel_requested_at"] = row["cancel_requested_at"] or change.created_at

    def _completed(self, row, change, payload):
        self._end(row, change, payload, "completed")
        row["output_data"] = payload.get("output")
        row["total_steps"] = max(row["total_steps"], row["completed_steps"])

    def _failed(self, row, change, payload):
        self._end(row, change, payload, "failed")
        row |= {"error": payload.get("error"), "error_type": payload.get("error_type")}

    def _cancelled(self, row, change, payload):
        self._end(row, change, payload, "cancelled")
        row |= {"error": payload.get("error"), "error_type": None}

    def _end(self, row, change, payload, status):
        row |= {"status": status, "completed_at": change.created_at}
        row["execution_time_ms"] = payload.get("execution_time_ms", row["execution_time_ms"])

    def _resumed(self, row, change, payload):
        row |= {"status": "running", "attempt": row["attempt"] + 1, "worker_id": payload.get("worker_id")}
        row |= dict.fromkeys(
            ("completed_at", "output_data", "error", "error_type", "execution_time_ms", "cancel_requested_at")
        )
        row["started_at"] = row["started_at"] or change.created_at

    # -- executions ---------------------------------------------------------------------------------------------

    def _task(self, verb, change, payload):
        row = self.executions.get(change.entity_id)
        if verb == "started":
            return self._attempt(change, payload, row)
        if row is None:
            return NotFound
        if row["status"] not in ENDS[verb]:
            return Superseded if row["error_type"] == "WorkerLost" else InvalidTransition
        row |= {"status": verb, "completed_at": change.created_at, "output_data": payload.get("output")}
        row |= {key: payload.get(key) for key in ("error", "error_type", "execution_time_ms")}
        if verb == "completed" and row["kind"] == "task" and row["parent_execution_id"] is None:
            self.workflows[row["workflow_id"]]["completed_steps"] += 1
        return None

    def _attempt(self, change, payload, row):
        if row is not None:
            return Conflict
        workflow = self.workflows.get(change.workflow_id)
        if workflow is None:
            return NotFound
        if workflow["cancel_requested_at"] is not None and workflow["status"] == "running":
            return WorkflowCancelled
        if payload.get("attempt", workflow["attempt"]) != workflow["attempt"]:
            return Superseded
        if workflow["status"] != "running":
            return InvalidTransition
        self.executions[change.entity_id] = {
            "workflow_id": change.workflow_id,
            "task_name": payload["task_name"],
            "kind": payload["kind"],
            "status": "running",
            "input_data": payload.get("input"),
            "output_data": None,
            "error": None,
            "error_type": None,
            "retry_count": payload.get("retry_count", 0),
            "parent_execution_id": payload.get("parent_execution_id"),
            "worker_id": payload.get("worker_id"),
            "created_at": change.created_at,
            "completed_at": None,
            "execution_time_ms": None,
        }
        if payload["kind"] == "task" and payload.get("parent_execution_id") is None:
            workflow["current_step"] = payload["task_name"]
        return None

    # -- what is said -------------------------------------------------------------------------------------------

    def _conversation(self, verb, change, payload):
        if change.entity_id in self.conversations:
            return Conflict
        self.conversations[change.entity_id] = {"last_seq": 0, "created_at": change.created_at}
        return None

    def _message(self, verb, change, payload):
        conversation = self.conversations.get(change.entity_id)
        if conversation is None:
            return NotFound
        if verb == "removed":
            return self._removed(change, payload)
        if payload["message_id"] in self.messages:
            return Conflict
        conversation["last_seq"] += 1
        self.seqs[change.event_id] = conversation["last_seq"]
        self.messages[payload["message_id"]] = {
            "conversation_id": change.entity_id,
            "seq": conversation["last_seq"],
            "role": payload["message"]["role"],
            "content": payload["message"]["content"],
            "removed_at": None,
        }
        return None

    def _removed(self, change, payload):
        standing = [
            row
            for row in self.messages.values()
            if row["conversation_id"] == change.entity_id and row["seq"] in payload["seqs"] and not row["removed_at"]
        ]
        for row in standing:
            row["removed_at"] = change.created_at
        return None if standing else Conflict

    def _feedback(self, verb, change, payload):
        if payload["feedback_id"] in self.feedback:
            return Conflict
        self.feedback[payload["feedback_id"]] = {
            "workflow_id": change.workflow_id,
            "name": payload["name"],
            "score": payload["score"],
            "created_at": change.created_at,
        }
        return None

    def _note(self, verb, change, payload):
        return None  # an event of the application's own moves nothing


KEYS = {
    "workflows": ("workflows", "workflow_id"),
    "executions": ("task_executions", "execution_id"),
    "conversations": ("conversations", "conversation_id"),
    "messages": ("messages", "message_id"),
    "feedback": ("feedback", "feedback_id"),
}


def differences(model: Model, connection) -> list[str]:
    """Where the rows of the database are not those of the model."""
    found = []
    for name, (table, key) in KEYS.items():
        rows = getattr(model, name)
        columns = sorted(next(iter(rows.values()), {}))
        selected = ", ".join([key, *columns])
        stored = {
            row[0]: dict(zip(columns, row[1:], strict=True))
            for row in connection.execute(f"SELECT {selected} FROM {table}")
        }
        found += [f"{table} has {stray}, which is not expected" for stray in stored.keys() - rows.keys()]
        for row_id, wanted in rows.items():
            there = stored.get(row_id)
            if there != wanted:
                found.append(f"{table}[{row_id}] is {there}, not {wanted}")
    return found
