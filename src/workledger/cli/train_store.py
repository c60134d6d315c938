"""`workledger train-store`: the training stores made again from the log, and kept in order."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, print_table, progress
from workledger.cli._session import session_of
from workledger.cli._text import count

if TYPE_CHECKING:
    from workledger.training.compaction import Compacted
    from workledger.training.lake import Maintained
    from workledger.training.records import RecordType

__all__ = ["add_to"]

_Store = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Only this one of the training stores; its options may be left out."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="train-store", help="Make training stores again from the log; keep them in order.", no_args_is_help=True
    )
    group.command(
        epilog=examples(
            "workledger train-store rebuild --to file:data/again",
            "workledger train-store rebuild --from 100001 --to s3://bucket/again",
            "workledger train-store rebuild --to delta+s3://bucket/lake",
        )
    )(rebuild)
    group.command(epilog=examples("workledger train-store compact", "workledger train-store compact --whole"))(compact)
    group.command(
        epilog=examples("workledger train-store maintain", "workledger train-store maintain --keep-hours 168 --json")
    )(maintain)
    app.add_typer(group)


def rebuild(
    context: typer.Context,
    to: Annotated[
        str, typer.Option(metavar="URL", help="The new store; without formats it gets those of the old one.")
    ],
    first: Annotated[
        int, typer.Option("--from", min=1, metavar="POSITION", help="Copy what lies before it from the old store.")
    ] = 1,
    store: _Store = None,
    *,
    as_json: _Json = False,
) -> None:
    """Make a new training store from the log, and from the archive where it has part of the log.

    Its ranges end where those of the old store end (the first one that is made of files, unless --store says which), so
    that its files are those of the old one, byte for byte, if that is sound. With --from, what lies before that
    position is copied from the old store and compared with its digests; a range has to begin there. The old store is
    left alone: name the new one in training_url when it is there. What was interrupted goes on when it is run again.
    """
    from workledger.assembly import training_stores

    stores = training_stores(session_of(context).settings)
    with progress("rebuilding", quiet=as_json) as tell:
        position = stores.rebuild(to, first=first, like=store, on_progress=lambda done, _total: tell(done))
    if as_json:
        print_json({"store": stores.open(to).name, "position": position})
    else:
        print_lines(f"{stores.open(to).name} holds everything up to position {position:,}.")


def compact(
    context: typer.Context,
    store: _Store = None,
    *,
    whole: Annotated[
        bool, typer.Option("--whole", help="Also join the ranges of a block that is not full, however few.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Join small adjacent shards into large ones; remove what was replaced an hour ago.

    Nobody who reads sees a position twice or not at all. Safe while others land and read; `workledger up` does it all
    the time. Lake tables are left to `maintain`.
    """
    from workledger.assembly import training_stores

    stores = training_stores(session_of(context).settings)
    done: dict[str, Compacted] = {}
    with progress("joining ranges", quiet=as_json) as tell:
        for one in stores.chosen_shard_stores(store):
            done[one.name] = stores.compact(one, whole=whole, on_joined=tell)
    if as_json:
        print_json({"stores": [{"store": name, **_numbers(found)} for name, found in done.items()]})
        return
    for name, found in done.items():
        print_lines(f"{name}: {_told(found)}.")
    if not done:
        note("there is no training store of files; `workledger train-store maintain` is for lake tables")


def maintain(
    context: typer.Context,
    store: _Store = None,
    keep_hours: Annotated[
        float, typer.Option(min=0, metavar="HOURS", help="Keep what older versions of lake tables need for so long.")
    ] = 24.0,
    *,
    as_json: _Json = False,
) -> None:
    """Do what every training store needs now and then: what `compact` does, and the same for lake tables.

    In lake tables small files are joined by day, versions older than --keep-hours are forgotten, and files that no
    version has any more are removed; those that no commit ever named when they are a day old. Safe while others land
    and read what is younger than that; `workledger up` does it every ten times maintain_s.
    """
    from workledger.assembly import training_stores

    stores = training_stores(session_of(context).settings)
    shards = {one.name: stores.compact(one) for one in stores.chosen_shard_stores(store)}
    tables: dict[str, dict[RecordType, Maintained]] = {}
    with progress("tables", quiet=as_json) as tell:
        for lake in stores.chosen_lakes(store):
            tables[lake.name] = stores.maintain(lake, keep=timedelta(hours=keep_hours), on_table=tell)
    if as_json:
        found: list[dict[str, Any]] = [{"store": name, **_numbers(one)} for name, one in shards.items()]
        found += [
            {"store": name, "tables": {kind: _numbers(one) for kind, one in kinds.items()}}
            for name, kinds in tables.items()
        ]
        print_json({"stores": found})
        return
    for name, done in shards.items():
        print_lines(f"{name}: {_told(done)}.")
    for name, kinds in tables.items():
        print_lines(f"{name}:")
        rows = [(kind, one.joined, one.made, one.expired, one.removed) for kind, one in kinds.items()]
        print_table(("TABLE", "JOINED#", "INTO#", "VERSIONS FORGOTTEN#", "FILES REMOVED#"), rows)


def _numbers(done: Compacted | Maintained) -> dict[str, int]:
    return {name: getattr(done, name) for name in ("joined", "made", "expired", "removed") if hasattr(done, name)}


def _told(done: Compacted) -> str:
    return f"joined {count(done.joined, 'range')} into {done.made:,}, removed {count(done.removed, 'file')}"
