"""SQL from `.sql` files: one statement a file, loaded once."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import LiteralString, cast

__all__ = ["load"]


@cache
def load(package: str, name: str) -> LiteralString:
    """Return the statement in `<package>/queries/<name>.sql`.

    The files are part of the package, written by us and reviewed like code: that is what makes their text
    literal in the sense of `LiteralString`.
    """
    return cast("LiteralString", resources.files(package).joinpath("queries", f"{name}.sql").read_text("utf-8").strip())
