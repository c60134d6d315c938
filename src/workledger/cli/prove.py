"""`workledger prove`: a proof that one event is in the log, unaltered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workledger.cli._help import examples
from workledger.cli._output import print_json
from workledger.cli._session import session_of
from workledger.errors import InvalidInput

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "workledger prove 0198c0de-77aa-7c85-95da-d5a16d6f3f8c > proof.json",
            "workledger prove 4711 --checkpoint kept.checkpoint",
        )
    )(prove)


def prove(
    context: typer.Context,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The id of an event, or its position in the log.")],
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prove against this checkpoint, which somebody has kept.")
    ] = None,
) -> None:
    """Print a proof, as JSON, that an event is in the log as it was sealed.

    Thirty lines of Python that know nothing of Workledger check it: docs/how-to/prove-an-event.md has them.
    """
    from workledger.flows import prove as proofs

    kept = None if checkpoint is None else _read(checkpoint)
    with session_of(context).connection() as connection:
        position = proofs.position_of(connection, event)
        print_json(proofs.prove(connection, position, checkpoint=kept))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"the checkpoint {path} cannot be read: {error}", field="checkpoint", value=str(path), limit=None
        ) from error
