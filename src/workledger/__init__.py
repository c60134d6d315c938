"""Workledger: the system of record for workflows and agents.

Record once. Query it, audit it, train on it, measure it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workledger._version import __version__

if TYPE_CHECKING:
    from workledger.assembly import open  # noqa: A004  the word users type: workledger.open()
    from workledger.model.change import Usage
    from workledger.sdk.ledger import Ledger

__all__ = ["Ledger", "Usage", "__version__", "open"]

# The driver takes longer to import than everything else together; a program that only imports us does not pay.
_HOMES = {"open": "workledger.assembly", "Usage": "workledger.model.change", "Ledger": "workledger.sdk.ledger"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'workledger' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
