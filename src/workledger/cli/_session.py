"""What every command starts from: the settings in force, and what they lead to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import typer

from workledger.settings import Settings, load_settings

if TYPE_CHECKING:
    from workledger.postgres.connection import Connection
    from workledger.sdk.ledger import Ledger

__all__ = ["Session", "session_of"]


@dataclass
class Session:
    """The global options of a command line, and the settings they make together with environment and files."""

    given: dict[str, Any] = field(default_factory=dict[str, Any])

    @cached_property
    def settings(self) -> Settings:
        """The settings in force; raises `ConfigurationError`."""
        return load_settings(**self.given)

    @contextmanager
    def connection(self) -> Generator[Connection]:
        """A connection to read with."""
        from workledger.assembly import open_connection

        with open_connection(self.settings) as connection:
            yield connection

    @contextmanager
    def ledger(self) -> Generator[Ledger]:
        """The ledger, to record with."""
        from workledger.assembly import open_ledger

        with open_ledger(self.settings) as ledger:
            yield ledger


def session_of(context: typer.Context) -> Session:
    """The session that the global options made."""
    return cast("Session", context.obj)
