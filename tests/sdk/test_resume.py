"""An unfinished workflow goes on where it stopped, in this process or another, and refuses code that has changed."""

import subprocess
import sys
import textwrap

import pytest

import workledger
from support.waiting import wait_until
from workledger.errors import Conflict, InvalidTransition, ReplayMismatch


class Program:
    """A workflow of three tasks whose behaviour a test can change between two runs."""

    def __init__(self, ledger):
        self.ran = []
        self.fail_at = None
        self.order = ["a", "b", "c"]
        self.arguments = {}

        @ledger.task
        def step(name, value):
            self.ran.append(name)
            if name == self.fail_at:
                raise RuntimeError("boom")
            return f"{name}:{value}"

        def named(name):
            @ledger.task(name=name)
            def call(value):
                self.ran.append(name)
                if name == self.fail_at:
                    raise RuntimeError("boom")
                return f"{name}:{value}"

            return call

        steps = {name: named(name) for name in "abcd"}

        @ledger.workflow
        def program(value):
            return [steps[name](self.arguments.get(name, value)) for name in self.order]

        self.call = program

    def run(self, workflow_id="w", value=1):
        return self.call.options(workflow_id=workflow_id)(value)


@pytest.fixture
def program(ledger):
    return Program(ledger)


def interrupt(program, at="c"):
    program.fail_at = at
    with pytest.raises(RuntimeError):
        program.run()
    program.fail_at = None
    program.ran.clear()


def test_finished_tasks_return_their_recorded_output(ledger, program):
    interrupt(program)
    assert program.run() == ["a:1", "b:1", "c:1"]
    assert program.ran == ["c"]
    workflow = ledger.get_workflow("w")
    assert (workflow.status, workflow.attempt, workflow.completed_steps) == ("completed", 2, 3)
    assert [(row.task_name, row.retry_count, row.status) for row in ledger.executions("w")] == [
        ("a", 0, "completed"),
        ("b", 0, "completed"),
        ("c", 0, "failed"),
        ("c", 1, "completed"),
    ]


def test_a_completed_workflow_returns_its_output_and_runs_nothing(program):
    first = program.run()
    program.ran.clear()
    assert program.run() == first
    assert program.ran == []


def test_a_completed_workflow_called_with_other_arguments_is_a_conflict(program):
    program.run()
    with pytest.raises(Conflict, match="other arguments"):
        program.run(value=2)


def test_a_changed_argument_of_a_finished_task_is_refused(program):
    interrupt(program)
    program.arguments["b"] = 99
    with pytest.raises(ReplayMismatch, match="'b' was recorded with other arguments"):
        program.run()


def test_a_changed_order_of_finished_tasks_is_refused(program):
    interrupt(program)
    program.order = ["b", "a", "c"]
    with pytest.raises(ReplayMismatch, match="called before 'a'"):
        program.run()


def test_a_finished_task_that_is_left_out_is_refused(program):
    interrupt(program)
    program.order = ["a", "d"]
    with pytest.raises(ReplayMismatch, match="without calling it"):
        program.run()


def test_a_refused_resume_can_be_tried_again_with_the_right_code(program):
    interrupt(program)
    program.order = ["b", "a", "c"]
    with pytest.raises(ReplayMismatch):
        program.run()
    program.order = ["a", "b", "c"]
    assert program.run() == ["a:1", "b:1", "c:1"]


def test_resume_by_id_uses_the_recorded_arguments(ledger, program):
    interrupt(program)
    assert ledger.resume("w") == ["a:1", "b:1", "c:1"]


def test_a_workflow_that_a_live_worker_is_running_is_not_taken_from_it(ledger, program):
    with ledger.start_workflow("program", workflow_id="w"), pytest.raises(InvalidTransition, match="being run by"):
        program.run()


def test_another_process_resumes_after_a_crash(database_url, tmp_path):
    source = textwrap.dedent("""
        import os, sys, workledger
        ledger = workledger.open(sys.argv[1], home=sys.argv[2], lease_s=1)
        @ledger.task
        def first(): print("first ran"); return 41
        @ledger.task
        def second(x):
            if len(sys.argv) > 3: os.kill(os.getpid(), 9)
            return x + 1
        @ledger.workflow
        def crashing(): return second(first())
        print(crashing.options(workflow_id="w")())
    """)
    script = tmp_path / "crashing.py"
    script.write_text(source)
    command = [sys.executable, str(script), database_url, str(tmp_path)]
    crashed = subprocess.run([*command, "crash"], capture_output=True, text=True, timeout=120)
    assert crashed.returncode == -9, crashed.stderr
    with workledger.open(database_url, home=tmp_path) as ledger:
        wait_until(lambda: not ledger.running())  # the lease of the dead worker passes
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.stdout == "42\n", again.stderr
