"""Random schedules of changes, from several threads, coroutines and two processes, against a model in plain Python."""

from __future__ import annotations

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from msgspec.structs import replace

import workledger
from chaos.ledger_model import Applied, Model, differences
from chaos.peer import Peer, record_lanes
from support.changes import make
from workledger.errors import WorkledgerError
from workledger.flows.verify import check_events, check_log, check_state, one_moment
from workledger.log.sequencer import sequence
from workledger.model.change import Failure
from workledger.model.ids import new_id
from workledger.operational.apply import Outcome

FAILURE = Failure(error_type="ValueError", error="no")
#: Everything about slot n has n in its id; changes of different slots never meet, so each slot can be predicted.
SLOTS = 4

COMMANDS = {
    "create": lambda n, k, attempt: make("start_workflow", workflow_id=f"w{n}", name="w", pending=True, input=k),
    "start": lambda n, k, attempt: make("start_workflow", workflow_id=f"w{n}", name="w", input=k, worker_id=f"k{k}"),
    "progress": lambda n, k, attempt: make(
        "progress_workflow", workflow_id=f"w{n}", attempt=attempt, state_data={"k": k}, total_steps=k
    ),
    "complete": lambda n, k, attempt: make(
        "complete_workflow", workflow_id=f"w{n}", attempt=attempt, output=[k, None], execution_time_ms=1.5
    ),
    "fail": lambda n, k, attempt: make("fail_workflow", workflow_id=f"w{n}", attempt=attempt, failure=FAILURE),
    "cancel": lambda n, k, attempt: make("cancel_workflow", workflow_id=f"w{n}", attempt=attempt, reason=f"r{k}"),
    "request_cancel": lambda n, k, attempt: make("request_cancel", workflow_id=f"w{n}", reason="enough"),
    "resume": lambda n, k, attempt: make("resume_workflow", workflow_id=f"w{n}", attempt=attempt or 1, worker_id="k"),
    "start_task": lambda n, k, attempt: make(
        "start_execution", workflow_id=f"w{n}", execution_id=f"e{n}-{k}", task_name=f"t{k}", attempt=attempt, input=k
    ),
    "start_subtask": lambda n, k, attempt: make(
        "start_execution", workflow_id=f"w{n}", execution_id=f"e{n}-{k}", task_name="sub", parent_execution_id=f"e{n}-0"
    ),
    "start_tool": lambda n, k, attempt: make(
        "start_execution",
        workflow_id=f"w{n}",
        execution_id=f"e{n}-{k}",
        task_name="tool",
        kind="tool",
        parent_execution_id=f"e{n}-0",
        retry_count=k,
    ),
    "complete_task": lambda n, k, attempt: make(
        "complete_execution", workflow_id=f"w{n}", execution_id=f"e{n}-{k}", output={"k": k}, execution_time_ms=2.0
    ),
    "fail_task": lambda n, k, attempt: make(
        "fail_execution", workflow_id=f"w{n}", execution_id=f"e{n}-{k}", failure=FAILURE
    ),
    "lose_task": lambda n, k, attempt: make(
        "fail_execution",
        workflow_id=f"w{n}",
        execution_id=f"e{n}-{k}",
        failure=Failure(error_type="WorkerLost", error="gone"),
    ),
    "cancel_task": lambda n, k, attempt: make("cancel_execution", workflow_id=f"w{n}", execution_id=f"e{n}-{k}"),
    "converse": lambda n, k, attempt: make("start_conversation", conversation_id=f"c{n}", workflow_id=f"w{n}"),
    "say": lambda n, k, attempt: make(
        "add_message", conversation_id=f"c{n}", message_id=f"m{n}-{k}", message={"role": "user", "content": k}
    ),
    "say_more": lambda n, k, attempt: make(
        "add_message", conversation_id=f"c{n}", message_id=f"m{n}-{new_id()}", message={"role": "user", "content": k}
    ),
    "unsay": lambda n, k, attempt: make("remove_messages", conversation_id=f"c{n}", seqs=[k, k + 1]),
    "judge": lambda n, k, attempt: make(
        "record_feedback", feedback_id=f"f{n}-{k}", workflow_id=f"w{n}", name="ok", score=float(k)
    ),
    "note": lambda n, k, attempt: make(
        "record_event", event_type="note.taken", entity_type="agent", entity_id=f"a{n}", payload={"k": k}
    ),
}
#: Drawn more often: what gets a slot somewhere.
LIKELY = ["start", "start_task", "start_subtask", "complete_task", "complete_task", "resume", "converse", "say"]
#: Where a slot may stand when the schedules begin.
BEGINNINGS = {
    "nowhere": [],
    "pending": [("create", 0, "none")],
    "running": [("start", 0, "none"), ("start_task", 0, "none"), ("start_subtask", 1, "none"), ("converse", 0, "none")],
    "failed": [("start", 0, "none"), ("start_task", 0, "none"), ("complete_task", 0, "none"), ("fail", 0, "none")],
}

commands = st.tuples(
    st.sampled_from([*COMMANDS, *LIKELY]), st.integers(0, 2), st.sampled_from(["none", "current", "current", "wrong"])
)
lanes = st.lists(
    st.tuples(st.sampled_from(["thread", "coroutine", "batch"]), st.booleans(), st.lists(commands, max_size=6)),
    min_size=SLOTS,
    max_size=SLOTS,
)


class Ledgers(RuleBasedStateMachine):
    """Two ledgers on one store, in two processes, and the model of both."""

    url: str
    home: object
    peer: Peer
    numbers = itertools.count()

    def __init__(self):
        super().__init__()
        self.model = Model()
        self.made = []
        self.sound = True

    @initialize(where=st.lists(st.sampled_from([*BEGINNINGS]), min_size=SLOTS, max_size=SLOTS))
    def begin(self, where):
        self.project = f"p{next(self.numbers)}"
        self.ledger = workledger.open(self.url, home=self.home, project=self.project, record_timeout_s=60)
        self.peer.open(self.project)
        self.schedule([("batch", False, BEGINNINGS[beginning]) for beginning in where])

    @rule(lanes=lanes)
    def schedule(self, lanes):
        """Each slot's changes in their order, all slots at once."""
        expected = []
        here, there = [], []
        for slot, (how, elsewhere, picks) in enumerate(lanes):
            changes, answers = self.foresee(slot, picks)
            (there if elsewhere else here).append((how, changes))
            expected.append((elsewhere, answers, how == "batch"))
        found = self.record(here, there)
        for elsewhere, answers, is_batch in expected:
            check(found[elsewhere].pop(0), answers, is_batch=is_batch)

    @rule(slot=st.integers(0, SLOTS - 1), picks=st.lists(commands, min_size=2, max_size=3))
    def race(self, slot, picks):
        """Changes of one slot from several callers at the same time: as if they had come in some order."""
        changes = [self.change(slot, *pick) for pick in picks]
        self.made += changes
        found = self.record([("thread", [change]) for change in changes[1:]], [("thread", [changes[0]])])
        outcomes = [answers[0] for answers in [*found[True], *found[False]]]
        self.model = self.some_order(changes, outcomes)

    @rule(numbers=st.lists(st.integers(0, 999), min_size=1, max_size=4), elsewhere=st.booleans())
    def repeat(self, numbers, elsewhere):
        """Changes that were made before, applied or refused, come again: from both processes, and twice."""
        if not self.made:
            return
        again = [self.made[number % len(self.made)] for number in numbers]
        lane = [("thread", again)]
        found = self.record([] if elsewhere else lane, lane if elsewhere else [])
        check(found[elsewhere][0], [self.model.apply(change) for change in again])

    @rule(number=st.integers(0, 999))
    def contradict(self, number):
        """The id of an event that was recorded, with other content."""
        notes = [change for change in self.model.events.values() if change.event_type == "note.taken"]
        if notes:
            change = replace(notes[number % len(notes)], payload=b'{"k":"other"}')
            check(self.record([("thread", [change])], [])[False][0], [self.model.apply(change)])

    @rule()
    def sequence(self):
        with self.ledger.pool.connection() as connection:
            sequence(connection, schema=self.project)

    def teardown(self):
        if not hasattr(self, "ledger"):
            return
        try:
            if self.sound:
                self.check_everything()
        finally:
            self.ledger.close()

    # -- helpers ------------------------------------------------------------------------------------------------

    def change(self, slot, command, k, attempt):
        row = self.model.workflows.get(f"w{slot}")
        current = row["attempt"] if row else 1
        return COMMANDS[command](slot, k, {"none": None, "current": current, "wrong": current + 1}[attempt])

    def foresee(self, slot, picks):
        changes, answers = [], []
        for pick in picks:
            change = self.change(slot, *pick)
            changes.append(change)
            answers.append(self.model.apply(change))
        self.made += changes
        return changes, answers

    def record(self, here, there):
        self.peer.begin(there)
        found = record_lanes(self.ledger, here)
        return {False: found, True: self.peer.answers()}

    def some_order(self, changes, outcomes):
        for order in itertools.permutations(range(len(changes))):
            model = self.model.copy()
            answers = {n: model.apply(changes[n]) for n in order}
            if all(agrees(outcomes[n], answers[n], loosely=True) for n in order) and not self.differences(model):
                return model
        self.sound = False
        told = [
            f"{change.event_type} {change.payload}: {outcome!r}"
            for change, outcome in zip(changes, outcomes, strict=True)
        ]
        raise AssertionError(f"no order gives {told} from {self.model.workflows}")

    def differences(self, model):
        with self.ledger.pool.connection() as connection:
            return differences(model, connection)

    def check_everything(self):
        assert not self.differences(self.model)
        with self.ledger.pool.connection() as connection:
            recorded = connection.execute(
                "SELECT event_id::text, count(*) FROM events WHERE entity_type NOT IN ('system', 'definition')"
                " GROUP BY event_id"
            ).fetchall()
            assert dict(recorded) == dict.fromkeys(self.model.events, 1)
            with one_moment(connection):
                state = check_state(connection, schema=self.project)
                checks = [state, check_log(connection), check_events(connection)]
            assert [str(fault) for check in checks for fault in check.faults] == []
            connection.execute(f"DROP SCHEMA {self.project} CASCADE")


def check(found, expected, *, is_batch=False):
    assert len(found) == len(expected)
    for outcome, answer in zip(found, expected, strict=True):
        assert agrees(outcome, answer, loosely=is_batch), f"{outcome!r} is not {answer!r}"


def agrees(outcome, answer, *, loosely):
    if isinstance(answer, Applied):
        return outcome == Outcome(applied=answer.now, seq=answer.seq)
    # A refusal is worded after it, when others (or later changes of its batch) may have changed the state again.
    return isinstance(outcome, WorkledgerError) if loosely else type(outcome) is answer


@pytest.fixture
def machine(database_url, tmp_path):
    peer = Peer(database_url, tmp_path / "peer")
    yield type("Bound", (Ledgers,), {"url": database_url, "home": tmp_path, "peer": peer})
    peer.close()


def run(machine, *, examples, steps):
    run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


@pytest.mark.timeout(900)  # a failure is made smaller for some minutes
def test_random_schedules_leave_the_state_the_events_and_the_answers_of_the_model(machine):
    run(machine, examples=20, steps=15)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_long_random_schedules_do_too(machine):
    run(machine, examples=120, steps=40)
