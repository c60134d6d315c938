"""Every instrument is declared once, bounded, and documented."""

from __future__ import annotations

import math
import re

import pytest

from support.requirements import REPOSITORY
from workledger.metrics.instruments import ALL, LEDGER_EVENTS, OTHER, STORED, Label, printable
from workledger.metrics.tally import Admitted
from workledger.model.change import _RESERVED

DOCUMENT = REPOSITORY / "docs" / "reference" / "metrics.md"


def test_the_reference_page_has_every_metric_as_it_is_declared():
    rows = re.findall(r"^\| `(workledger_\w+)` \| (\w+) \| (.+?) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    declared = [
        (made.name, made.type, ", ".join(f"`{label.name}`" for label in made.labels) or "none", made.help)
        for made in ALL
    ]
    assert [row for row in rows if row[1] in {"counter", "gauge", "histogram"}] == declared


def test_the_reference_page_has_the_bounds_of_the_open_labels():
    text = DOCUMENT.read_text()
    for instrument in STORED:
        for label in instrument.labels:
            if not label.values:
                line = next(
                    line
                    for line in text.splitlines()
                    if line.startswith("|") and f"`{label.name}`" in line and re.search(rf"\| {label.bound}\b", line)
                )
                assert line, label


def test_names_are_unique_and_follow_prometheus():
    names = [instrument.name for instrument in ALL]
    assert len(set(names)) == len(names)
    for instrument in ALL:
        assert re.fullmatch(r"workledger(_[a-z0-9]+)+", instrument.name)
        assert instrument.name.endswith("_total") == (instrument.type == "counter")
        assert (instrument.type == "histogram") == bool(instrument.buckets)
        assert list(instrument.buckets) == sorted(set(instrument.buckets))
        assert instrument.help.endswith(".")


def test_ids_are_never_labels_and_every_label_is_bounded():
    for instrument in ALL:
        for label in instrument.labels:
            assert not label.name.endswith("id"), instrument
            assert bool(label.values) != bool(label.domain and label.bound), instrument
            assert label.most <= 250


def test_every_metric_has_a_bounded_number_of_series():
    for instrument in ALL:
        series = math.prod(label.most for label in instrument.labels)
        assert series <= 4000, instrument.name


def test_the_ledger_s_own_event_types_are_those_of_the_model():
    assert LEDGER_EVENTS == _RESERVED


def test_labels_of_one_domain_share_one_bound():
    bounds = {}
    for label in {label for instrument in ALL for label in instrument.labels if label.domain}:
        assert bounds.setdefault(label.domain, label.bound) == label.bound


def test_the_first_values_are_admitted_and_the_rest_are_other():
    label = Label(name="role", domain="role", bound=2, always=frozenset({"system"}))
    admitted = Admitted([("role", "user", 1)])
    values = [admitted.value(label, text, n) for n, text in enumerate(["system", "user", "tool", "critic", "tool"])]
    assert values == ["system", "user", "tool", OTHER, "tool"]
    assert [admitted.look_up(label, text) for text in ("user", "critic", "system")] == ["user", OTHER, "system"]


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        (None, "unknown"),
        ("", "unknown"),
        ("plain", "plain"),
        ("ünïcode 🦄", "ünïcode 🦄"),
        ("\ufdd00000", "\ufffd"),
        ("a\nb\tc\x85d", "a\ufffdb\ufffdc\ufffdd"),
        ("\ufdd0D800", "\ufffd"),
        ("x" * 300, "x" * 255),
    ],
)
def test_recorded_text_becomes_a_label_value_that_any_format_can_carry(recorded, shown):
    assert printable(recorded) == shown
    printable(recorded).encode()
