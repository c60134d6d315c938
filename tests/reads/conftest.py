"""A project filled with 20,000 workflows, as the planner meets them: made once for every server."""

import importlib.util
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from support.postgres import fresh_database
from support.requirements import REPOSITORY
from workledger.postgres.connection import connect

SCALE = 20_000


def _fill():
    path = REPOSITORY / "benchmarks" / "fill.py"
    spec = importlib.util.spec_from_file_location("fill", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill


@pytest.fixture(scope="session", params=["postgres15_url", "postgres18_url"], ids=["postgresql-15", "postgresql-18"])
def filled_url(request):
    """A database whose project has 20,000 workflows with their executions and events, analysed."""
    with fresh_database(request.getfixturevalue(request.param)) as url:
        _fill()(url, project="workledger", scale=SCALE, running=0.05)
        yield url


@pytest.fixture
def filled(filled_url):
    """A reading connection to the filled project."""
    with connect(filled_url) as connection:
        yield connection


@pytest.fixture
def explain(filled):
    """The nodes of the plan of a statement for given parameters."""

    def nodes(plan):
        yield plan
        for child in plan.get("Plans", ()):
            yield from nodes(child)

    def explain(text, parameters):
        with psycopg.RawCursor(filled) as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {text}", parameters)
            return list(nodes(cursor.fetchone()[0][0]["Plan"]))

    return explain


def days_ago(days):
    return datetime.now(UTC) - timedelta(days=days)
