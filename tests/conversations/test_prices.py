"""A cost is put to tokens when they are recorded, by a table that is data, and the event says by which version."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workledger
from workledger import Usage
from workledger.errors import ConfigurationError
from workledger.operational.prices import PriceTable, load_prices

NOW = datetime(2025, 11, 20, tzinfo=UTC)
OWN = """
version = "ours-7"
[[price]]
models = ["ours-large", "ours-large-v2"]
from = 2024-01-01
input_usd_per_mtok = 2.5
output_usd_per_mtok = 10
[[price]]
models = ["ours-large"]
from = 2025-01-01
input_usd_per_mtok = 1.1
output_usd_per_mtok = 4.4
"""


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(OWN)
    return path


def payloads(ledger, event_type):
    with ledger.pool.connection() as connection:
        rows = connection.execute("SELECT payload FROM events WHERE event_type = %s", (event_type,)).fetchall()
    return [row[0] for row in rows]


def test_the_table_that_comes_with_workledger_is_whole():
    table = load_prices()
    assert table.version
    assert table.price("gpt-4o", date(2025, 6, 1)).input_usd_per_mtok == Decimal("2.5")


def test_a_price_holds_from_its_day_until_the_next(own_file):
    table = load_prices(own_file)
    assert table.price("ours-large", date(2023, 12, 31)) is None
    assert table.price("ours-large", date(2024, 12, 31)).input_usd_per_mtok == Decimal("2.5")
    assert table.price("ours-large", date(2025, 1, 1)).input_usd_per_mtok == Decimal("1.1")
    assert table.price("ours-large-v2", date(2025, 1, 1)).input_usd_per_mtok == Decimal("2.5")


@given(given_tokens=st.integers(0, 10**9), returned=st.integers(0, 10**9))
def test_a_cost_is_exact(given_tokens, returned):
    priced = load_prices().priced(Usage(model="gpt-4o-mini", input_tokens=given_tokens, output_tokens=returned), NOW)
    assert priced.cost_usd * 10**8 == given_tokens * 15 + returned * 60


@pytest.mark.parametrize(
    "usage",
    [
        Usage(model="gpt-4o", input_tokens=10, output_tokens=10, cost_usd=0.5),
        Usage(model="gpt-4o", input_tokens=10, output_tokens=10, cost_usd=0),
        Usage(model="nobody-knows", input_tokens=10, output_tokens=10),
        Usage(model="gpt-4o", output_tokens=10),
        Usage(model="gpt-4o", input_tokens="10"),
        Usage(input_tokens=10, output_tokens=10),
        Usage(model="gpt-4o"),
    ],
)
def test_a_given_cost_an_unknown_model_and_missing_tokens_are_left_alone(usage):
    assert load_prices().priced(usage, NOW) == usage


def test_the_cost_of_a_message_and_of_an_execution_are_recorded_with_the_version(ledger):
    with ledger.start_workflow("w") as run:
        with run.llm("call", model="gpt-4o-mini") as call:
            call.usage = Usage(input_tokens=1000, output_tokens=500)
        run.message("assistant", "hi", usage=Usage(model="gpt-4o-mini", input_tokens=7, output_tokens=3))
    (execution,) = ledger.executions(run.workflow_id)
    (message,) = run.messages()
    assert (execution.cost_usd, execution.model) == (Decimal("0.00045"), "gpt-4o-mini")
    assert message.cost_usd == Decimal("0.00000285")
    version = load_prices().version
    assert [event["price_version"] for event in payloads(ledger, "task.completed")] == [version]
    assert [event["price_version"] for event in payloads(ledger, "message.added")] == [version]


def test_a_cost_that_was_given_names_no_version(ledger):
    ledger.conversation("c").add("assistant", "hi", usage=Usage(model="gpt-4o", input_tokens=1, cost_usd=0.25))
    (payload,) = payloads(ledger, "message.added")
    assert payload["cost_usd"] == 0.25
    assert "price_version" not in payload


def test_a_table_of_the_users_own_takes_the_place_of_ours(database_url, tmp_path, own_file):
    with workledger.open(database_url, home=tmp_path, prices_file=str(own_file)) as ledger:
        chat = ledger.conversation("c")
        for model in ("ours-large", "gpt-4o"):
            chat.add("assistant", "hi", usage=Usage(model=model, input_tokens=1_000_000, output_tokens=1_000_000))
        assert [message.cost_usd for message in chat.messages()] == [Decimal("5.5"), None]
        assert [event.get("price_version") for event in payloads(ledger, "message.added")] == ["ours-7", None]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version = ", "TOMLDecodeError"),
        ('version = "1"', "price"),
        (OWN.replace('"ours-7"', "7"), "version must be a text"),
        (OWN.replace("2024-01-01", '"2024-01-01"'), "is not a date"),
        (OWN.replace("2024-01-01", "2024-01-01T00:00:00"), "is not a date"),
        (OWN.replace("2.5", "-2.5"), "negative"),
        (OWN.replace("2.5", "nan"), "not a number"),
        (OWN.replace("2.5", '"a lot"'), "malformed"),
        (OWN.replace("input_usd_per_mtok = 2.5", "input = 2.5"), "an entry has"),
        (OWN.replace('["ours-large", "ours-large-v2"]', "7"), "malformed"),
        ("price = 7\nversion = '1'", "malformed"),
        ("price = [7]\nversion = '1'", "malformed"),
    ],
)
def test_a_malformed_table_is_refused_at_the_start(tmp_path, text, problem):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        load_prices(path)


def test_a_table_that_is_not_there_is_refused_before_anything_is_opened(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        workledger.open("postgresql://nobody@127.0.0.1:1/none", home=tmp_path, prices_file=str(tmp_path / "none.toml"))


def test_a_table_without_prices_prices_nothing():
    usage = Usage(model="gpt-4o", input_tokens=1, output_tokens=1)
    assert PriceTable("empty", {}).priced(usage, NOW) is usage
