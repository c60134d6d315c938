"""Training stores by their URLs; several are separated by blanks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit, urlunsplit

from workledger.errors import ConfigurationError
from workledger.training import formats
from workledger.training import store as local

if TYPE_CHECKING:
    from workledger.training.bucket import Bucket
    from workledger.training.lake import LakeStore
    from workledger.training.objects import ObjectStore
    from workledger.training.shard_store import ShardStore
    from workledger.training.store import TrainingStore

# Each kind of store is an extra, and is imported when its scheme asks for it.
# ruff: noqa: PLC0415

__all__ = [
    "BUCKETS",
    "flush_s_of",
    "is_bucket",
    "is_lake",
    "needs_database",
    "open_bucket",
    "open_lake",
    "open_shard_store",
    "open_store",
    "split_urls",
    "with_formats",
]

_KNOWN: Final = (
    "file:FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, with ?format=jsonl,csv,parquet; "
    "or delta+file:FOLDER, delta+s3://…, iceberg+file:FOLDER, iceberg+s3://…?catalog=URL"
)
#: The schemes of buckets.
BUCKETS: Final = frozenset({"s3", "gs", "az"})
_LAKE_OPTIONS: Final = {
    "delta": frozenset({"endpoint", "region"}),
    "iceberg": frozenset({"endpoint", "region", "catalog", "namespace"}),
}
_LAKE_SCHEMES: Final = {"delta": frozenset({"file", *BUCKETS}), "iceberg": frozenset({"file", "s3", "gs"})}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def split_urls(text: str) -> list[str]:
    """Give the URLs in a setting, which are separated by blanks; a blank in a URL is written %20."""
    return text.split()


def open_store(url: str, *, database_url: Callable[[], str] = str, project: str = "workledger") -> TrainingStore:
    """Give the training store that a URL means. Nothing is made or read yet.

    Iceberg keeps its catalogue in the database that `database_url` gives, in a namespace called as the project,
    unless the URL names another one. Raises `ConfigurationError` for an URL that means nothing, `MissingExtra` when
    its library is not installed.
    """
    if is_lake(url):
        return open_lake(url, database_url=database_url, project=project)
    return open_shard_store(url)


def is_lake(url: str) -> bool:
    """Say whether a URL means tables of a lake, and not files of ours."""
    return urlsplit(url).scheme.startswith(("delta+", "iceberg+"))


def needs_database(url: str) -> bool:
    """Say whether a store cannot even be looked at without PostgreSQL, which has its catalogue."""
    parts = urlsplit(url)
    return parts.scheme.startswith("iceberg+") and "catalog" not in _query(parts)


def open_lake(url: str, *, database_url: Callable[[], str], project: str) -> LakeStore:
    """Give a training store that is tables of a lake."""
    _, bare = _without_flush(url)
    parts = urlsplit(bare)
    options = _query(parts)
    kind, _, scheme = parts.scheme.partition("+")
    known = _LAKE_OPTIONS.get(kind, frozenset())
    if scheme not in _LAKE_SCHEMES.get(kind, ()) or options.keys() - known or not (parts.path or parts.netloc):
        raise _meaningless(url)
    if kind == "delta":
        from workledger.training.delta import open_delta

        return open_delta(parts, options=options)
    from workledger.training.iceberg import open_iceberg

    return open_iceberg(parts, options={"namespace": project, **options}, database_url=database_url)


def open_shard_store(url: str) -> ShardStore:
    """Give a training store that is made of files: a folder or a bucket."""
    _, bare = _without_flush(url)
    scheme = urlsplit(bare).scheme
    if scheme == "file":
        return local.open_store(bare)
    if scheme in BUCKETS:
        return _open_objects(bare)
    raise _meaningless(url)


def is_bucket(url: str) -> bool:
    """Say whether a URL names a place in a bucket, and nothing else."""
    parts = urlsplit(url)
    is_named = parts.scheme in BUCKETS and parts.netloc != "" and "@" not in parts.netloc
    return is_named and _query(parts).keys() <= {"endpoint", "region"}


def open_bucket(url: str) -> Bucket:
    """Give the bucket that a URL names, below its path. Nothing is read yet."""
    from workledger.training.bucket import Bucket

    parts = urlsplit(url)
    query = _query(parts)
    prefix = unquote(parts.path).strip("/")
    return Bucket(parts.scheme, parts.netloc, prefix=prefix, endpoint=query.get("endpoint"), region=query.get("region"))


def with_formats(url: str, names: Sequence[str]) -> str:
    """Give a URL of files that says which formats they have, unless it says so itself or means a lake."""
    if not names or is_lake(url) or "format" in _query(urlsplit(url)):
        return url
    return f"{url}{'&' if '?' in url else '?'}format={','.join(names)}"


def flush_s_of(url: str) -> float | None:
    """Give the seconds after which this store is to have what was recorded, `?flush=500ms`; None when it says none."""
    return _without_flush(url)[0]


def _open_objects(url: str) -> ObjectStore:
    from workledger.training.objects import ObjectStore

    parts = urlsplit(url)
    query = _query(parts)
    wanted = query.pop("format", "jsonl").split(",")
    if not is_bucket(urlunsplit(parts._replace(query=urlencode(query)))):
        raise _meaningless(url)
    forms = [formats.named(name) for name in dict.fromkeys(wanted)]
    return ObjectStore(open_bucket(url), formats=forms)


def _query(parts: SplitResult) -> dict[str, str]:
    return {name: ",".join(values) for name, values in parse_qs(parts.query, keep_blank_values=True).items()}


def _without_flush(url: str) -> tuple[float | None, str]:
    """Give the `flush` of a URL in seconds, and the URL without it."""
    parts = urlsplit(url)
    kept = [word for word in parts.query.split("&") if word and not word.startswith("flush=")]
    said = [word.removeprefix("flush=") for word in parts.query.split("&") if word.startswith("flush=")]
    if not said:
        return None, url
    found = _DURATION.fullmatch(said[-1])
    if found is None or not float(found[1]) > 0:
        raise ConfigurationError(
            f"flush={said[-1]} in {url!r} is not a time; write 500ms, 2s or 1m",
            setting="WORKLEDGER_TRAINING_URL",
            value=url,
        )
    # Not `urlunsplit`, which would make `file:///x` of `file:x`.
    return float(found[1]) * _UNIT_S[found[2]], "?".join([url.partition("?")[0], "&".join(kept)]).rstrip("?")


def _meaningless(url: str) -> ConfigurationError:
    return ConfigurationError(
        f"{url!r} is not a training store; use {_KNOWN}", setting="WORKLEDGER_TRAINING_URL", value=url
    )
