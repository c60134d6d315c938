"""What the tests of payloads share: large values, what is stored of them, and a connection of the owner."""

import pytest

from workledger.postgres.connection import connect


@pytest.fixture
def owner(ledger, database_url):
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def stored(owner):
    """The digests of what is stored, as hex."""

    def stored():
        return {digest for (digest,) in owner.execute("SELECT encode(digest, 'hex') FROM payloads").fetchall()}

    return stored


@pytest.fixture
def large():
    """A value that is over the threshold, another one for every number."""
    return lambda n=0: {"n": n, "text": "large value " * 500}
