"""Any Python value goes to JSON and comes back equal, of the same type, or as a described placeholder."""

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workledger.model.jsonvalue import TAG, decode, encode, escape_text, is_placeholder, unescape_text

any_text = st.text(st.characters(codec=None, exclude_categories=()))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | any_text
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(dt.UTC))
    | st.uuids()
    | st.decimals(allow_nan=False)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(any_text | st.just(TAG), inner, max_size=4)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=20,
)


def same(left, right):
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right


@given(values)
def test_a_value_comes_back_equal_and_of_the_same_type(value):
    assert same(decode(encode(value)), value)


@given(values)
def test_what_is_written_is_json_that_postgresql_accepts(value):
    data = encode(value)
    json.loads(data, parse_constant=pytest.fail)  # NaN, Infinity and -Infinity, which are no JSON
    assert b"\\u0000" not in data.replace(b"\\\\", b"")


@given(any_text)
def test_escaped_text_has_no_nul_and_no_surrogates_and_comes_back(text):
    escaped = escape_text(text)
    escaped.encode()
    assert "\0" not in escaped
    assert unescape_text(escaped) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -0.0])
def test_numbers_that_json_lacks_come_back(value):
    back = decode(encode({"score": value}))["score"]
    assert repr(back) == repr(value)


def test_integers_of_any_size_stay_exact():
    assert decode(encode([2**53 + 1, -(2**64), 10**300])) == [2**53 + 1, -(2**64), 10**300]


def test_tuples_become_lists_and_sets_stay_sets():
    assert decode(encode({"pair": (1, 2), "set": {1, 2}, "frozen": frozenset("a")})) == {
        "pair": [1, 2],
        "set": {1, 2},
        "frozen": frozenset("a"),
    }


@pytest.mark.parametrize(
    "value",
    [
        dt.date(2026, 11, 24),
        dt.time(1, 2, 3),
        dt.timedelta(days=-1, microseconds=5),
        uuid.UUID(int=7),
        decimal.Decimal("1.10"),
        b"\x00\xff",
        bytearray(b"x"),
        1 + 2j,
    ],
)
def test_common_types_of_the_standard_library_come_back(value):
    back = decode(encode([value]))[0]
    assert back == value
    assert type(back) is type(value)


def test_a_value_that_cannot_be_kept_becomes_a_described_placeholder():
    told = []
    back = decode(encode({"handle": object()}, on_placeholder=told.append))["handle"]
    assert is_placeholder(back)
    assert back["type"] == "builtins.object"
    assert len(told) == 1


def test_a_cycle_ends():
    loop = {}
    loop["self"] = loop
    assert is_placeholder(decode(encode(loop))["self"])


def test_nesting_that_is_too_deep_ends():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    encode(deep)


def test_objects_that_say_their_fields_keep_them():
    @dataclasses.dataclass
    class Point:
        x: int
        label: str

    kept = decode(encode(Point(1, "a\0b")))
    assert kept["value"] == {"x": 1, "label": "a\0b"}
    assert kept["type"].endswith("Point")


def test_an_enum_keeps_its_type_and_value():
    class Colour(enum.Enum):
        RED = "red"

    kept = decode(encode(Colour.RED))
    assert kept[TAG] == "enum"
    assert kept["value"] == "red"


def test_a_broken_repr_does_not_break_the_recorded_program():
    class Broken:
        def __repr__(self):
            raise RuntimeError("no")

    assert "repr failed: RuntimeError" in decode(encode(Broken()))["repr"]


def test_a_placeholder_says_the_same_in_every_process():
    assert "0x" not in decode(encode(object()))["repr"]


def test_a_dict_that_looks_like_a_tag_is_not_taken_for_one():
    forged = {TAG: "float", "value": "NaN"}
    assert decode(encode(forged)) == forged


def test_equal_sets_give_equal_bytes():
    assert encode({"a", "b", "c"}) == encode({"c", "b", "a"})
