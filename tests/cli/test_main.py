"""What holds for every command: help, versions, global options, errors on one line, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer

from workledger._version import __version__
from workledger.cli._exits import exit_code
from workledger.cli.main import app
from workledger.errors import (
    ConfigurationError,
    Conflict,
    DatabaseUnavailable,
    InvalidInput,
    MissingExtra,
    NotFound,
    SchemaError,
    SpoolFull,
)

COMMANDS = [
    "demo",
    "up",
    "stop",
    "ps",
    "failed",
    "show",
    "events",
    "cancel",
    "resume",
    "import",
    "export",
    "verify",
    "migrate",
    "doctor",
]


def command_paths(command, path=()):
    """Every command and subcommand as a path of words."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from command_paths(below, (*path, name))


ALL = list(command_paths(typer.main.get_command(app)))


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_commands_of_the_design_are_there():
    assert {path[0] for path in ALL if len(path) == 1} >= set(COMMANDS)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_a_help_that_ends_well(cli, path):
    answer = cli(*path, "--help")
    assert answer.code == 0
    assert answer.err == ""
    assert "Usage: workledger" in plain(answer.out)


@pytest.mark.parametrize("path", [path for path in ALL if path], ids=" ".join)
def test_every_command_gives_an_example(path, cli):
    text = plain(cli(*path, "--help").out)
    assert "$ workledger" in text or "Commands" in text


def test_no_command_at_all_shows_the_help(cli):
    answer = cli()
    assert answer.code == 0
    for name in COMMANDS:
        assert re.search(rf"│ {name}\b", answer.out)


def test_the_version_is_told(cli):
    assert cli("--version").out == f"workledger {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "error: No such command 'nope'. See `workledger --help`\n"),
        (["show"], "error: Missing argument 'ID'. See `workledger show --help`\n"),
        (["ps", "--nope"], "error: No such option: --nope. See `workledger ps --help`\n"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(cli, arguments, message):
    answer = cli(*arguments)
    assert (answer.code, answer.out, answer.err) == (2, "", message)


def test_a_value_out_of_range_is_one_line_and_exit_2(cli):
    answer = cli("ps", "--limit", "0")
    assert answer.code == 2
    assert re.fullmatch(r"error: .*--limit.*\. See `workledger ps --help`\n", answer.err)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatabaseUnavailable("x"), 3),
        (SpoolFull("x"), 3),
        (SchemaError("x"), 3),
        (ConfigurationError("x"), 2),
        (MissingExtra("x"), 2),
        (InvalidInput("x"), 2),
        (NotFound("x"), 1),
        (Conflict("x"), 1),
        (KeyError("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert exit_code(error) == code


def test_a_database_that_is_away_is_one_line_and_exit_3(cli, shell):
    for command in (["ps"], ["failed"], ["verify"], ["show", "x"], ["events"], ["migrate"]):
        run = shell if command == ["ps"] else cli
        answer = run("--database-url", "postgresql://nobody@127.0.0.1:1/none", *command)
        assert (answer.code, answer.out) == (3, "")
        assert re.fullmatch(r"error: PostgreSQL cannot be reached: .*WORKLEDGER_DATABASE_URL.*\n", answer.err)


def test_a_database_url_that_means_nothing_is_one_line(cli):
    answer = cli("--database-url", "mysql://somewhere", "ps")
    assert answer.code != 0
    assert re.fullmatch(r"error: [^\n]+\n", answer.err)


def test_a_project_that_cannot_be_a_schema_is_one_line_and_exit_2(cli):
    answer = cli("ps", "--project", "no schema")
    assert answer.code == 2
    assert "project 'no schema' cannot be a schema name" in answer.err


def test_a_malformed_setting_is_one_line_and_exit_2(cli, monkeypatch):
    monkeypatch.setenv("WORKLEDGER_LEASE_S", "soon")
    answer = cli("ps")
    assert (answer.code, answer.err) == (2, "error: setting lease_s = 'soon' is not a float\n")


def test_a_bug_is_one_line_too_and_says_how_to_see_more(cli, monkeypatch):
    def broken(*_arguments, **_options):
        raise KeyError("oh\nno")

    monkeypatch.setattr("workledger.operational.reads.running_workflows", broken)
    answer = cli("ps")
    assert answer.code == 1
    assert re.fullmatch(r"error: KeyError: .*WORKLEDGER_DEBUG=1.*\n", answer.err)
    monkeypatch.setenv("WORKLEDGER_DEBUG", "1")
    with pytest.raises(KeyError):
        cli("ps")


def test_global_options_work_before_and_after_the_command(cli):
    for arguments in (["--project", "other", "ps"], ["ps", "--project", "other"], ["ps", "--project=other"]):
        assert cli(*arguments, "--json").document == {"workflows": [], "executions": []}


def test_nothing_after_two_dashes_is_taken_for_a_global_option(cli):
    answer = cli("show", "--", "--project")
    assert (answer.code, "'--project'" in answer.err) == (1, True)


def test_another_project_is_another_ledger(cli, ledger):
    with ledger.start_workflow("here", workflow_id="here-1"):
        assert len(cli("ps", "--json").document["workflows"]) == 1
        assert cli("--project", "elsewhere", "ps", "--json").document["workflows"] == []


def test_the_console_script_is_installed(environment):
    done = subprocess.run([f"{sys.prefix}/bin/workledger", "--version"], capture_output=True, text=True, timeout=200)
    assert done.stdout == f"workledger {__version__}\n"


def test_a_reader_that_goes_away_ends_the_command_quietly(environment, ledger):
    ledger.event("ping", entity_type="thing", entity_id="1")
    command = [sys.executable, "-m", "workledger.cli.main", "events", "-f", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline()
        process.stdout.close()
        ledger.event("ping", entity_type="thing", entity_id="2")
        assert process.wait(timeout=100) == 141
        assert process.stderr.read() == ""


def test_colour_is_for_terminals_and_no_color_is_honoured(shell, ledger):
    with pytest.raises(ValueError), ledger.start_workflow("bad"):
        raise ValueError("x")
    assert "\x1b[" not in shell("failed").out
    script = f"{sys.executable} -m workledger.cli.main failed"
    on_terminal = shell_on_terminal(script, {})
    assert "\x1b[" in on_terminal
    assert "\x1b[" not in shell_on_terminal(script, {"NO_COLOR": "1"})


def shell_on_terminal(script, env):
    import os
    import pty

    output = bytearray()

    def read(descriptor):
        data = os.read(descriptor, 4096)
        output.extend(data)
        return data

    pid, descriptor = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm-256color", **env})
        os.execvp("sh", ["sh", "-c", script])
    try:
        while read(descriptor):
            pass
    except OSError:
        pass
    os.waitpid(pid, 0)
    return output.decode()
