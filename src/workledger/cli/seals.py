"""`workledger seals`: making and listing seals, and keeping checkpoints elsewhere."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from workledger.cli._help import examples
from workledger.cli._output import print_json, print_lines, print_table
from workledger.cli._session import session_of
from workledger.cli._text import count, when

if TYPE_CHECKING:
    from workledger.log.seal import Seal

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The seals of the log: what makes an alteration show.", no_args_is_help=True)
    group.command("make", epilog=examples("workledger seals make"))(make)
    group.command("list", epilog=examples("workledger seals list", "workledger seals list --after 100 --json"))(
        list_seals
    )
    group.command(
        "checkpoint",
        epilog=examples(
            "workledger seals checkpoint /mnt/write-once/checkpoints",
            "workledger seals checkpoint s3://auditors/ledger",
        ),
    )(checkpoint)
    app.add_typer(group, name="seals")


def make(
    context: typer.Context, *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Seal everything up to the head of the log now; `workledger up` does it by itself every minute."""
    from workledger.assembly import signer_of
    from workledger.flows.seal import seal_all
    from workledger.log import seal
    from workledger.log.sequencer import sequence

    session = session_of(context)
    project = session.settings.project
    with session.connection() as connection:
        sequence(connection, schema=project)
        made = seal_all(connection, schema=project, signer=signer_of(session.settings, connection))
        newest = seal.newest(connection)
    if as_json:
        print_json({"made": made, "newest": None if newest is None else _document(newest)})
    elif newest is None:
        print_lines("The log is empty; there is nothing to seal.")
    else:
        how = "not signed" if newest.key_id is None else f"signed by {newest.key_id}"
        print_lines(f"Made {count(made, 'seal')}; the log is sealed up to position {newest.last_position:,}, {how}.")


def list_seals(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Begin after this seal.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many.")] = 100,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """The seals, oldest first: which positions each holds, when it was made, and who signed it."""
    from workledger.log import seal

    with session_of(context).connection() as connection:
        found = list(islice(seal.iterate(connection, after=after), limit))
    if as_json:
        print_json([_document(one) for one in found])
    elif found:
        rows = [
            [one.number, f"{one.first_position:,}", f"{one.last_position:,}", when(one.sealed_at), one.key_id or "-"]
            for one in found
        ]
        print_table(("SEAL#", "FROM#", "TO#", "MADE", "SIGNED BY"), rows)
    else:
        print_lines("There are no seals.")


def checkpoint(
    context: typer.Context,
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="[PLACE]", help="A folder or URL where the database cannot write. Default: the settings'."
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Keep a checkpoint: what the log is now, in a signed note, in a folder or a bucket outside the database.

    With it `workledger verify --seals --checkpoints PLACE` finds what even a superuser with the key rewrites. A
    checkpoint is never written over. `workledger up` keeps one an hour where `checkpoints_url` says; run this from
    cron, on another machine, if you can.
    """
    from workledger.assembly import checkpoints_of
    from workledger.errors import InvalidInput, NotFound
    from workledger.flows.seal import write_checkpoint

    session = session_of(context)
    store = checkpoints_of(session.settings, place)
    if store is None:
        raise InvalidInput(
            "say where to keep the checkpoint, or set checkpoints_url", field="place", value=None, limit="a place"
        )
    with session.connection() as connection:
        name = write_checkpoint(connection, store)
    if name is None:
        raise NotFound(
            "the newest seal is not signed; make a key with `workledger keys new` and a seal with "
            "`workledger seals make`",
            entity_type="seal",
            entity_id=None,
        )
    kept = _below(place or session.settings.checkpoints_url, name)
    if as_json:
        print_json({"checkpoint": kept})
    else:
        print_lines(kept)


def _below(place: str, name: str) -> str:
    """The address of a checkpoint."""
    path, mark, query = place.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def _document(one: Seal) -> dict[str, object]:
    return {**one.body, "hash": one.hash.hex(), "tree_root": one.tree_root.hex(), "key_id": one.key_id}
