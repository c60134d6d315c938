"""`workledger migrate`: the schema, made or brought up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workledger.cli._exits import FAILED
from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, print_text
from workledger.cli._session import session_of
from workledger.cli._text import count

if TYPE_CHECKING:
    from workledger.postgres.connection import Connection
    from workledger.postgres.migrate import Migration

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples("workledger migrate", "workledger migrate --check || workledger migrate --sql > upgrade.sql")
    )(migrate)


def migrate(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, metavar="VERSION", help="With --sql: only what comes after it.")] = 0,
    *,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the script for a database administrator; touch nothing.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only look: exit 1 when migrations are missing.")] = False,
    roles: Annotated[bool, typer.Option("--roles", help="Also make the roles: owner, writer, reader.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Create the project's schema, or bring it up to date. Safe while others work, and from several at once."""
    from workledger.assembly import connect_to
    from workledger.postgres import migrate as migrations

    settings = session_of(context).settings
    if sql:
        print_text(migrations.script(schema=settings.project, after=after))
        return
    with connect_to(settings) as connection:
        missing = migrations.pending(connection)
        applied = () if check else migrations.migrate(connection, schema=settings.project, on_applied=_tell)
        if roles and not check:
            _make_roles(connection, settings.project)
    if as_json:
        document = {"schema": settings.project, "pending": _names(missing if check else ()), "applied": _names(applied)}
        print_json(document)
    elif check:
        print_lines(f"Missing: {', '.join(_names(missing))}." if missing else "The schema is up to date.")
    else:
        what = f"Applied {count(len(applied), 'migration')}." if applied else "Nothing to do."
        print_lines(f"{what} The schema {settings.project!r} is up to date.")
    if check and missing:
        raise typer.Exit(FAILED)


def _make_roles(connection: Connection, project: str) -> None:
    from workledger.log.roles import make_roles

    made = make_roles(connection, schema=project)
    note(f"roles {made.owner}, {made.writer}, {made.reader}; grant one of them to who logs in")


def _names(migrations: tuple[Migration, ...]) -> list[str]:
    return [f"{migration.version:04d}_{migration.name}" for migration in migrations]


def _tell(migration: Migration) -> None:
    note(f"applied {migration.version:04d}_{migration.name}")
