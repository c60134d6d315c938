"""Skips that CI turns into failures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["REPOSITORY", "require", "require_program"]

REPOSITORY = Path(__file__).resolve().parents[2]


def require(name: str, reason: str) -> NoReturn:
    """Skip the test for want of `name`; fail it when WORKLEDGER_TEST_REQUIRE is `all` or lists `name`."""
    wanted = {word.strip() for word in os.environ.get("WORKLEDGER_TEST_REQUIRE", "").split(",")}
    if wanted & {"all", name}:
        pytest.fail(f"{name} is required by WORKLEDGER_TEST_REQUIRE: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def require_program(name: str, *candidates: str) -> Path:
    """Give the path of an installed program, the first of `candidates` that exists."""
    for candidate in candidates:
        found = shutil.which(candidate)
        if found is not None:
            return Path(found)
    require(name, f"none of {', '.join(candidates)} is installed; tools/install-test-servers installs it")
