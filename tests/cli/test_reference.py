"""The reference pages name every command, every option and every setting, and nothing else."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import typer

from support.requirements import REPOSITORY
from workledger.cli._exits import FAILED, INTERRUPTED, OK, OUTPUT_CLOSED, UNAVAILABLE, USAGE
from workledger.cli.main import app
from workledger.settings import SETTINGS_HELP, Settings

CLI_PAGE = (REPOSITORY / "docs/reference/cli.md").read_text()
SETTINGS_PAGE = (REPOSITORY / "docs/reference/settings.md").read_text()


def commands(command, path="workledger"):
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(app)))


def sections():
    parts = re.split(r"^#{2,3} (workledger .+)$", CLI_PAGE, flags=re.MULTILINE)
    return {"workledger": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def test_every_command_has_a_section_and_every_section_a_command():
    assert sorted(sections()) == sorted(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_a_section_names_every_option_of_its_command_and_no_other(path):
    options = {
        name for one in COMMANDS[path].params for name in (*one.opts, *one.secondary_opts) if name.startswith("-")
    }
    options -= {"--help"}
    rows = re.findall(r"^\| `(-[^|]*)\|", sections()[path], flags=re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row)} - {"--help"}
    assert documented == options


def test_every_exit_code_is_documented():
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", CLI_PAGE, flags=re.MULTILINE)}
    assert documented == {OK, FAILED, USAGE, UNAVAILABLE, INTERRUPTED, OUTPUT_CLOSED}


def test_every_setting_is_documented_with_its_variable_and_its_default():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*?) \| (.+) \|$", SETTINGS_PAGE, flags=re.MULTILINE)
    defaults = Settings()
    expected = [
        (field.name, f"WORKLEDGER_{field.name.upper()}", shown(getattr(defaults, field.name)))
        for field in fields(Settings)
    ]
    assert [row[:3] for row in rows] == expected
    assert {row[0] for row in rows} == set(SETTINGS_HELP)


def shown(value):
    if value == "":
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
