"""Exit codes, and the one line that an error becomes."""

from __future__ import annotations

import os
import sys
from typing import Final

from workledger.errors import ConfigurationError, InvalidInput, MissingExtra, SchemaError, Unavailable, WorkledgerError

__all__ = ["FAILED", "INTERRUPTED", "OK", "OUTPUT_CLOSED", "UNAVAILABLE", "USAGE", "complain", "exit_code"]

OK: Final = 0
#: The command did its work and the answer is no: a fault found, a line refused, a thing not there.
FAILED: Final = 1
#: The command line, a setting or an input is wrong, or a part is not installed: trying again changes nothing.
USAGE: Final = 2
#: A store cannot be reached or is not ready: the same command can be tried again.
UNAVAILABLE: Final = 3
INTERRUPTED: Final = 130
#: Whoever read the output went away (`workledger events -f | head`).
OUTPUT_CLOSED: Final = 141


def complain(error: Exception) -> int:
    """Say on one line of stderr what is wrong and what to do; return the exit code."""
    code, message = exit_code(error), _message(error)
    if os.environ.get("WORKLEDGER_DEBUG"):
        raise error
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return code


def exit_code(error: Exception) -> int:
    """The exit code of an error."""
    match error:
        case Unavailable() | SchemaError():
            return UNAVAILABLE
        case ConfigurationError() | MissingExtra() | InvalidInput():
            return USAGE
        case _:
            return USAGE if _is_usage_error(error) else FAILED


def _message(error: Exception) -> str:
    if isinstance(error, WorkledgerError):
        text = error.message
    elif _is_usage_error(error):
        text = f"{error.format_message().rstrip('.')}.{_see_help(error)}"  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    else:
        text = (
            f"{type(error).__name__}: {error}. This is a bug in Workledger; "
            "run the command again with WORKLEDGER_DEBUG=1 for the traceback"
        )
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()


def _is_usage_error(error: Exception) -> bool:
    """Say whether the command line parser raised it; its classes have moved between versions of typer."""
    return callable(getattr(error, "format_message", None))


def _see_help(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "workledger")
    return f" See `{path} --help`"
