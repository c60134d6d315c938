"""What models cost: a versioned table, as data, by which a cost is put to tokens when they are recorded.

The table that comes with Workledger is `prices.toml` beside this file; the setting `prices_file` names another of the
same form. A recorded cost never changes afterwards: its event says which version it was computed by.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from workledger.errors import ConfigurationError
from workledger.model.fact import Usage

__all__ = ["Price", "PriceTable", "load_prices"]

_PER: Final = Decimal(1_000_000)
_FIELDS: Final = frozenset({"models", "from", "input_usd_per_mtok", "output_usd_per_mtok"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a model from a day on, in US dollars for a million tokens."""

    since: date
    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal


class PriceTable:
    """Prices by the exact name of the model, under one version."""

    def __init__(self, version: str, prices: Mapping[str, Sequence[Price]]) -> None:
        self.version = version
        self._prices = {
            model: sorted(known, key=lambda price: price.since, reverse=True) for model, known in prices.items()
        }

    def price(self, model: str, on: date) -> Price | None:
        """The price of a model on a day (UTC); None when the table does not have it."""
        return next((price for price in self._prices.get(model, ()) if price.since <= on), None)

    def priced(self, usage: Usage, at: datetime) -> Usage:
        """The usage with its cost: the one that was given, else the one of this table, else none."""
        if usage.cost_usd is not None or usage.model is None or not _counts(usage.input_tokens, usage.output_tokens):
            return usage
        price = self.price(usage.model, at.date())
        if price is None:
            return usage
        total = (usage.input_tokens or 0) * price.input_usd_per_mtok
        total += (usage.output_tokens or 0) * price.output_usd_per_mtok
        return replace(usage, cost_usd=(total / _PER).normalize(), price_version=self.version)


def _counts(given: object, returned: object) -> bool:
    """Say whether these are token counts; an embedding returns none, but every call is given some."""
    return type(given) is int and (returned is None or type(returned) is int)


def load_prices(path: Path | None = None) -> PriceTable:
    """The price table in a file, by default the one that comes with Workledger.

    Raises `ConfigurationError` when the file cannot be read or is not a price table.
    """
    if path is None:
        text = resources.files("workledger.operational").joinpath("prices.toml").read_text("utf-8")
        return _parse(text, "prices.toml")
    try:
        return _parse(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the price table {path} cannot be read: {error}", setting="prices_file", value=str(path)
        ) from error


def _parse(text: str, name: str) -> PriceTable:
    try:
        return _table(tomllib.loads(text, parse_float=Decimal))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigurationError(
            f"the price table {name} is malformed ({type(error).__name__}: {error}); it has a version and [[price]] "
            "entries of models, from (a date), input_usd_per_mtok and output_usd_per_mtok",
            setting="prices_file",
            value=name,
        ) from error


def _table(table: Mapping[str, Any]) -> PriceTable:
    version = table["version"]
    if not isinstance(version, str) or not version:
        raise ValueError("version must be a text")
    prices: dict[str, list[Price]] = {}
    for entry in table["price"]:
        price = _price(entry)
        for model in entry["models"]:
            prices.setdefault(model, []).append(price)
    return PriceTable(version, prices)


def _price(entry: Mapping[str, Any]) -> Price:
    if _FIELDS.symmetric_difference(entry):
        raise ValueError(f"an entry has {', '.join(sorted(entry))}")
    if type(entry["from"]) is not date:
        raise ValueError(f"from = {entry['from']!r} is not a date")
    given, returned = Decimal(entry["input_usd_per_mtok"]), Decimal(entry["output_usd_per_mtok"])
    if not (given.is_finite() and returned.is_finite() and given >= 0 and returned >= 0):
        raise ValueError(f"a price of {entry['models']} is negative or not a number")
    return Price(since=entry["from"], input_usd_per_mtok=given, output_usd_per_mtok=returned)
