"""Roles: who may add to the log, who may only read it, and nobody who may change it.

`PROJECT_owner` owns everything, `PROJECT_writer` records and runs the loops, `PROJECT_reader` reads. None of them can
log in: they are granted to those who do. No role can update, delete or truncate events, positions or seals: the
writer has no right to, and the triggers refuse the owner too. A superuser, or the owner after switching the triggers
off, can; that is what the seals are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workledger.errors import ConfigurationError
from workledger.postgres.connection import Connection, check_schema_name, translate_errors
from workledger.postgres.statements import load

__all__ = ["Roles", "make_roles", "roles_of"]

# PostgreSQL cuts names at 63 characters, which would make one role of several.
_LONGEST_PROJECT: Final = 56


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The names of a project's roles."""

    owner: str
    writer: str
    reader: str


def roles_of(schema: str) -> Roles:
    """The names of the roles of a project; raises `ConfigurationError` when its own is too long to make them of."""
    if len(check_schema_name(schema)) > _LONGEST_PROJECT:
        raise ConfigurationError(
            f"the project name {schema!r} has {len(schema)} characters; roles need one of at most {_LONGEST_PROJECT}",
            setting="WORKLEDGER_PROJECT",
            value=schema,
        )
    return Roles(owner=f"{schema}_owner", writer=f"{schema}_writer", reader=f"{schema}_reader")


def make_roles(connection: Connection, *, schema: str) -> Roles:
    """Make the roles of a project, or bring their rights up to date; safe to repeat, and due after each migration.

    The connection's `search_path` must be the project's schema, and its user must own that schema and be able to
    create roles.
    """
    roles = roles_of(schema)
    with translate_errors(), connection.transaction():
        connection.execute(load("workledger.log", "make_roles"), prepare=False)
    return roles
