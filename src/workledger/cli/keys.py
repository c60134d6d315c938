"""`workledger keys`: the keys that sign the seals of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, print_table
from workledger.cli._session import Session, session_of
from workledger.cli._text import when

if TYPE_CHECKING:
    from workledger.log.keys import KeyFolder
    from workledger.log.seal_notes import SealKey

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="The keys that sign the seals of the log: secret ones in the home folder, public ones in the database.",
        no_args_is_help=True,
    )
    group.command("new", epilog=examples("workledger keys new"))(new)
    group.command("list", epilog=examples("workledger keys list --json"))(list_keys)
    group.command("rotate", epilog=examples("workledger keys rotate"))(rotate)
    app.add_typer(group, name="keys")


def new(
    context: typer.Context, *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Make a key, and print its public side: give that to whoever shall be able to check.

    The secret is written to HOME/keys, readable by its owner alone. From now on all seals are signed. Machines that
    seal the same log need a key each, or copies of one.
    """
    from workledger.flows.seal import make_key

    session = session_of(context)
    with session.connection() as connection:
        key = make_key(connection, schema=session.settings.project, folder=_folder(session))
    _print_key(session, key, as_json=as_json)


def rotate(
    context: typer.Context, *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Replace the key: the old one signs that the new one comes after it, and its secret is removed.

    Who trusts the old public key can follow to the new one.
    """
    from workledger.flows.seal import rotate_key

    session = session_of(context)
    with session.connection() as connection:
        key = rotate_key(connection, schema=session.settings.project, folder=_folder(session))
    _print_key(session, key, as_json=as_json)


def list_keys(
    context: typer.Context, *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """The public keys that the database lists, oldest first, and what this machine can do with them."""
    from workledger.log.seal_keys import listed_keys

    session = session_of(context)
    folder = _folder(session)
    with session.connection() as connection:
        found = listed_keys(connection)
    if as_json:
        print_json(
            [
                {
                    "key_id": listed.key.key_id,
                    "verifier_key": listed.key.verifier_key,
                    "created_at": listed.created_at,
                    "endorsed_by": listed.endorsed_by,
                    "replaced": listed.replaced,
                    "secret_here": folder.can_sign(listed.key.key_id),
                }
                for listed in found
            ]
        )
        return
    if not found:
        print_lines("There are no keys; seals are chained, but not signed. `workledger keys new` makes one.")
        return
    rows = [
        [
            listed.key.key_id,
            when(listed.created_at),
            "replaced" if listed.replaced else "signs" if folder.can_sign(listed.key.key_id) else "secret elsewhere",
            listed.endorsed_by or "",
            listed.key.verifier_key,
        ]
        for listed in found
    ]
    print_table(("KEY", "MADE", "STATE", "ENDORSED BY", "PUBLIC KEY"), rows)


def _folder(session: Session) -> KeyFolder:
    from workledger.log.keys import KeyFolder

    return KeyFolder(session.settings.home / "keys")


def _print_key(session: Session, key: SealKey, *, as_json: bool) -> None:
    secret = session.settings.home / "keys" / f"{key.key_id}.pem"
    if as_json:
        print_json({"key_id": key.key_id, "verifier_key": key.verifier_key, "secret": str(secret)})
        return
    print_lines(key.verifier_key)
    note(f"This is the public key. The secret is in {secret}: keep a copy of it in a safe place.")
