"""Settings: frozen, from the environment, a TOML file or arguments; stores are URLs.

Order of precedence: arguments, `WORKLEDGER_*` variables, `[tool.workledger]` in `pyproject.toml` or the top level
of `workledger.toml` in the working directory, defaults.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from workledger.errors import ConfigurationError

__all__ = ["SETTINGS_HELP", "Settings", "load_settings"]

#: One line for each setting, for `workledger doctor` and the reference page.
SETTINGS_HELP: Mapping[str, str] = {
    "home": "folder of the embedded servers and local files",
    "database_url": "PostgreSQL 15 or newer; empty starts the embedded server in the home folder",
    "project": "the PostgreSQL schema that holds one project",
    "synapse_url": "the bus: redis://…, redis+sentinel://…, redis+cluster://…, kafka://…, embedded:, postgres: (none)",
    "training_url": "the training stores: file:FOLDER?format=jsonl,csv, s3://…, delta+s3://…; several with a blank",
    "archive_url": "where the archive is: file:FOLDER or a place in a bucket; empty: archive/ in the training store",
    "seal_after_s": "seconds after which `up` seals what was recorded, where it is fewer events than fill a seal",
    "checkpoints_url": "where `up` keeps checkpoints: file:FOLDER or a place in a bucket, outside the database",
    "checkpoint_every_s": "seconds from one checkpoint to the next",
    "archive_after_days": "days after which `up` archives what is finished; 0: only `workledger archive` does",
    "collect_every_days": "days between two times that `workledger up` removes stored values nothing refers to; "
    "0: only `workledger collect` does",
    "metrics_url": "where metrics go: prometheus://HOST:PORT, influx+http://HOST:PORT/?db=…; several with a comma",
    "dashboard_url": "where the dashboard listens; loopback only",
    "durability": "commit: a write returns when it is committed; buffered: at once, committed within buffer_s",
    "buffer_s": "seconds within which buffered writes are committed",
    "record_timeout_s": "seconds that a write waits for PostgreSQL (a lock, a server that stands still) before it is "
    "spooled; without a spool it is an error",
    "spool_limit_bytes": "bound of the local spool that holds changes while PostgreSQL is away; 0 turns it off",
    "lease_s": "seconds after its last heartbeat when a worker counts as lost",
    "flush_s": "seconds after which the training writer lands what it has",
    "maintain_s": "seconds between two rounds of joining small files in the training stores; 0: only by command",
    "shard_rows": "log positions after which the training writer starts a new shard",
    "prices_file": "a price table of your own (TOML), by which model calls without a cost are given one",
    "pooled": "true behind PgBouncer in transaction mode: no prepared statements, no LISTEN",
}


_POSITIVE: Final = (
    "lease_s",
    "flush_s",
    "shard_rows",
    "buffer_s",
    "record_timeout_s",
    "seal_after_s",
    "checkpoint_every_s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a process needs to know before it opens anything."""

    home: Path = Path(".workledger")
    database_url: str = ""
    project: str = "workledger"
    synapse_url: str = ""
    training_url: str = "file:data/training?format=jsonl,csv"
    archive_url: str = ""
    archive_after_days: float = 0.0
    collect_every_days: float = 1.0
    seal_after_s: float = 60.0
    checkpoints_url: str = ""
    checkpoint_every_s: float = 3600.0
    metrics_url: str = "prometheus://127.0.0.1:9464"
    dashboard_url: str = "http://127.0.0.1:8321"
    durability: str = "commit"
    buffer_s: float = 0.05
    record_timeout_s: float = 10.0
    spool_limit_bytes: int = 256 * 1024 * 1024
    lease_s: float = 30.0
    flush_s: float = 2.0
    maintain_s: float = 60.0
    shard_rows: int = 100_000
    prices_file: str = ""
    pooled: bool = False

    def __post_init__(self) -> None:
        for name in ("archive_after_days", "collect_every_days", "maintain_s"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(
                    f"setting {name} = {getattr(self, name)} is negative; 0 turns it off",
                    setting=name,
                    value=getattr(self, name),
                )
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    f"setting {name} = {getattr(self, name)} must be positive", setting=name, value=getattr(self, name)
                )
        if self.durability not in {"commit", "buffered"}:
            raise ConfigurationError(
                f"setting durability = {self.durability!r}; it is 'commit' or 'buffered'",
                setting="durability",
                value=self.durability,
            )


def load_settings(*, environ: Mapping[str, str] | None = None, folder: Path | None = None, **given: Any) -> Settings:
    """Return the settings in force. Unknown names and malformed values raise `ConfigurationError`."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    values.update(_from_file(folder or Path.cwd()))
    values.update(_from_environment(environ))
    values.update({name: value for name, value in given.items() if value is not None})
    known = {field.name for field in fields(Settings)}
    if unknown := sorted(set(values) - known):
        raise ConfigurationError(
            f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}", setting=unknown[0], value=None
        )
    defaults = Settings()
    return replace(defaults, **{name: _convert(name, value, getattr(defaults, name)) for name, value in values.items()})


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    known = {field.name for field in fields(Settings)}
    prefix = "WORKLEDGER_"
    found = {name.removeprefix(prefix).lower(): value for name, value in environ.items() if name.startswith(prefix)}
    # Other WORKLEDGER_ variables belong to the tests and to integrations.
    return {name: value for name, value in found.items() if name in known}


def _from_file(folder: Path) -> dict[str, Any]:
    own = folder / "workledger.toml"
    if own.is_file():
        return _read_toml(own)
    shared = folder / "pyproject.toml"
    if shared.is_file():
        return _read_toml(shared).get("tool", {}).get("workledger", {})
    return {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}", setting=str(path), value=None) from error


def _convert(name: str, value: Any, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return value if isinstance(value, bool) else _truth(str(value))
        if isinstance(default, Path):
            return Path(value).expanduser()
        return type(default)(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"setting {name} = {value!r} is not a {type(default).__name__}", setting=name, value=value
        ) from error


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError(text)
