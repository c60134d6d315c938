"""How lines are written into files; a new format is one file here and its line in `_FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from workledger.errors import ConfigurationError
from workledger.training.formats._format import Format, FormatWriter, Sink
from workledger.training.formats.csv import Csv
from workledger.training.formats.jsonl import Jsonl

__all__ = ["NAMES", "Format", "FormatWriter", "Sink", "named"]


def _parquet() -> Format:
    # pyarrow is an extra, and takes longer to import than everything else together.
    from workledger.training.formats.parquet import Parquet  # noqa: PLC0415

    return Parquet()


_FORMATS: Final[Mapping[str, Callable[[], Format]]] = MappingProxyType(
    {"jsonl": Jsonl, "csv": Csv, "parquet": _parquet}
)
#: The formats there are.
NAMES: Final = frozenset(_FORMATS)


def named(name: str) -> Format:
    """Give the format of that name, or raise `ConfigurationError`; `MissingExtra` when its library is not there."""
    try:
        make = _FORMATS[name]
    except KeyError:
        raise ConfigurationError(
            f"no training file format is called {name!r}; known are {', '.join(_FORMATS)}",
            setting="WORKLEDGER_TRAINING_URL",
            value=name,
        ) from None
    return make()
