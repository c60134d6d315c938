"""What commands print: tables for people, one JSON document for programs, progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import typer

from workledger.cli import _exits
from workledger.cli._text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = [
    "STATUS_STYLE",
    "note",
    "print_json",
    "print_lines",
    "print_table",
    "print_text",
    "progress",
    "styled",
    "to_plain",
]

STATUS_STYLE: Final[Mapping[str, str]] = {
    "pending": "dim",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
}
_PIPED_WIDTH: Final = 4000
_PLAIN_PROGRESS_S: Final = 2.0


# -- for people -------------------------------------------------------------------------------------------------


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under a header. A terminal folds what is too wide; in a pipe, a row is a line."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for column in columns:
        right = column.endswith("#")
        table.add_column(column.removesuffix("#"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if _is_text(cell) else styled(cell) for cell in row))
    _print(table)


def print_lines(*lines: Any) -> None:
    """Print lines; a `Text` keeps its style. Plain ones need no rich, which takes a while to import."""
    for line in lines:
        if _is_text(line):
            _print(line)
        else:
            _write(f"{printable(line)}\n")


def print_text(text: str) -> None:
    """Print text as it is, whatever its length."""
    _write(text if text.endswith("\n") else text + "\n")


def styled(value: object, style: str = "") -> Text:
    """Recorded text as something that can be printed safely; None is nothing."""
    from rich.text import Text

    return Text("" if value is None else printable(value), style=style or STATUS_STYLE.get(str(value), ""))


def note(message: str) -> None:
    """Say something beside the result, on stderr."""
    print(message, file=sys.stderr)  # noqa: T201


def _is_text(value: object) -> bool:
    return hasattr(value, "__rich_measure__") or hasattr(value, "__rich_console__")


def _print(content: Any) -> None:
    console = _console()
    with console.capture() as capture:
        console.print(content)
    # Rich pads cells to the width of their column; nobody needs the blanks at the ends of lines.
    _write("\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n")


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    # Without colour there is no other ornament either: https://no-color.org
    colours = None if os.environ.get("NO_COLOR") else "auto"
    return Console(highlight=False, markup=False, emoji=False, width=width, color_system=colours)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError:
        sys.stdout.write(text.encode("ascii", "backslashreplace").decode())
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer would raise again when the interpreter closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_exits.OUTPUT_CLOSED) from None


# -- for programs -----------------------------------------------------------------------------------------------


def print_json(document: object, *, indent: int | None = 2) -> None:
    """Print one JSON document."""
    plain = to_plain(document)
    text = json.dumps(plain, indent=indent, ensure_ascii=False, allow_nan=False)
    if not text.isprintable() and not _encodes(text):
        text = json.dumps(plain, indent=indent, ensure_ascii=True, allow_nan=False)
    _write(text + "\n")


def to_plain(value: object) -> Any:
    """A value as JSON types: instants in ISO form, exact decimals as text, what JSON lacks as the ledger tags it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0 else _tagged(value)
        case datetime():
            return value.isoformat()
        case Decimal():
            return str(value)
        case msgspec.Struct():
            return {name: to_plain(getattr(value, name)) for name in value.__struct_fields__}
        case dict():
            return _plain_mapping(cast("dict[Any, Any]", value))
        case list() | tuple():
            return [to_plain(item) for item in cast("Sequence[Any]", value)]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return to_plain(asdict(value))
        case _:
            return _tagged(value)


def _plain_mapping(value: dict[Any, Any]) -> Any:
    if all(isinstance(key, str) for key in value):
        return {key: to_plain(item) for key, item in value.items()}
    return _tagged(value)


def _tagged(value: object) -> Any:
    from workledger.model.jsonvalue import encode

    return msgspec.json.decode(encode(value))


def _encodes(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


# -- while it lasts ---------------------------------------------------------------------------------------------


@contextmanager
def progress(what: str, *, total: int | None = None, quiet: bool = False) -> Generator[Callable[[int], None]]:
    """Show on stderr how far something has come; gives a function that takes the number done so far."""
    if quiet:
        yield lambda _done: None
    elif sys.stderr.isatty():
        with _bar(what, total) as tell:
            yield tell
    else:
        yield _Plain(what, total)


@contextmanager
def _bar(what: str, total: int | None) -> Generator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


class _Plain:
    """Progress where there is no terminal: a line every few seconds."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._of = "" if total is None else f" of {total:,}"
        self._told_s = time.monotonic()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self._told_s >= _PLAIN_PROGRESS_S:
            self._told_s = time.monotonic()
            note(f"{self._what}: {done:,}{self._of}")
