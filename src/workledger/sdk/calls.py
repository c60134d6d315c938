"""Calls as data: the arguments of a function by name, and an exception as a failure."""

from __future__ import annotations

import functools
import hashlib
import inspect
import traceback
from collections.abc import Callable
from typing import Any

from workledger.model.change import Failure
from workledger.model.ids import MAX_ID_CHARS
from workledger.model.jsonvalue import encode

__all__ = ["arguments", "digest", "failure_of", "full_name", "short_key", "source_digest"]

_RECEIVERS = frozenset({"self", "cls"})


@functools.lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by parameter name, without the receiver of a method."""
    try:
        bound = _signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        # The call itself will raise the same error where the caller can see it.
        return {"args": list(args), **kwargs}
    first = next(iter(bound), None)
    return {name: value for name, value in bound.items() if not (name == first and name in _RECEIVERS)}


def digest(value: object) -> str:
    """A digest of a value's content, equal for equal values: how a resumed task knows its arguments again."""
    return hashlib.blake2b(_canonical(value), digest_size=16).hexdigest()


def short_key(path: str) -> str:
    """A step's key, from its path of names: the path itself, or where that is too long its beginning and a digest."""
    if len(path) <= MAX_ID_CHARS:
        return path
    mark = hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{path[: MAX_ID_CHARS - len(mark) - 1]}~{mark}"


def _canonical(value: object) -> bytes:
    return encode(dict(sorted(value.items())) if isinstance(value, dict) else value)


def failure_of(error: BaseException) -> Failure:
    """An exception as what is recorded of it: type, message, traceback."""
    return Failure(error_type=full_name(type(error)), error=_message(error), error_traceback=_traceback(error))


def full_name(kind: type) -> str:
    """`ValueError` for a builtin, `package.module.Name` otherwise."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  a broken __str__ must not break the recorded program
        return f"<{type(error).__name__} whose message cannot be read>"


def _traceback(error: BaseException) -> str:
    try:
        made = traceback.TracebackException.from_exception(error)
        _leave_out_columns(made)
        return "".join(made.format())
    except Exception:  # noqa: BLE001  the same
        return ""


def _leave_out_columns(made: traceback.TracebackException) -> None:
    """Keep `traceback` from marking columns, for which it parses each line.

    Until gh-106905 was mended, two threads that parsed at once both failed; the other may be the recorded program's.
    """
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [made]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        for frame in one.stack:
            frame.colno = None
        waiting += [one.__cause__, one.__context__, *(one.exceptions or ())]


def source_digest(function: Callable[..., Any]) -> str | None:
    """A digest of a function's source text, or None where there is none (a REPL, a C function)."""
    try:
        source = inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()
