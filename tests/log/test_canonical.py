"""Canonical JSON is that of RFC 8785, with integers exact."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workledger.errors import InvalidInput
from workledger.model.canonical import canonicalise

# RFC 8785, appendix B.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_a_double_is_written_as_the_rfc_writes_it(bits, text):
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonicalise(value).decode() == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_reads_back_as_itself(value):
    assert float(canonicalise(value)) == value


@pytest.mark.parametrize("value", [2**53 + 1, -(2**64), 10**40])
def test_an_integer_keeps_every_digit_which_the_rfc_would_round(value):
    assert canonicalise(value) == str(value).encode()


def test_the_example_of_the_rfc_comes_out_as_printed_there():
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert (
        canonicalise(value).decode()
        == '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_utf16_code_units():
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\u00f6"]
    ordered = ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canonicalise(dict.fromkeys(keys)))) == ordered


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(JSON)
def test_what_is_written_means_the_same_and_does_not_depend_on_the_order_of_keys(value):
    written = canonicalise(value)
    assert json.loads(written) == value
    assert canonicalise(json.loads(written)) == written


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), {1: 2}, {"a": {2}}, "\ud800", {"\udfff": 1}, b"x"])
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(InvalidInput, match="no canonical JSON"):
        canonicalise(value)
