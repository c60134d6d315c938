"""How lines are written into files; a new format is one file here and its line in `_FORMATS`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from workledger.errors import ConfigurationError
from workledger.training.formats._format import Format, FormatWriter, Sink
from workledger.training.formats.csv import Csv
from workledger.training.formats.jsonl import Jsonl

__all__ = ["Format", "FormatWriter", "Sink", "named"]

_FORMATS: Final[Mapping[str, Format]] = MappingProxyType({"jsonl": Jsonl(), "csv": Csv()})


def named(name: str) -> Format:
    """Give the format of that name, or raise `ConfigurationError`."""
    try:
        return _FORMATS[name]
    except KeyError:
        raise ConfigurationError(
            f"no training file format is called {name!r}; known are {', '.join(_FORMATS)}",
            setting="WORKLEDGER_TRAINING_URL",
            value=name,
        ) from None
