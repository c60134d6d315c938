"""Parts of help texts."""

from __future__ import annotations

import inspect

import typer

__all__ = ["examples", "flow_helps"]


def flow_helps(app: typer.Typer) -> None:
    """Have the paragraphs of every command's help fill the width of the terminal, instead of that of our source."""
    for command in app.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = command.help or "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            flow_helps(group.typer_instance)


def examples(*commands: str) -> str:
    """Example commands as the end of a help text, one a line."""
    return "\n\n".join(["Examples:", *(f"$ {command}" for command in commands)])
