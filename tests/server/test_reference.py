"""The page about the HTTP API names everything that the API takes and gives."""

from __future__ import annotations

import dataclasses

import pytest

from server.recorded import Dashboard
from support.requirements import REPOSITORY
from workledger.log.consumers import Consumer
from workledger.operational import overview
from workledger.server import views

PAGE = (REPOSITORY / "docs" / "reference" / "http-api.md").read_text("utf-8")
SHOWN = [getattr(views, name) for name in views.__all__ if name not in {"to_json", "Value", "Filters"}]
SHOWN += [Consumer, overview.DatabaseFacts, overview.EventPartition, overview.WorkerState]


@pytest.mark.parametrize("view", SHOWN, ids=lambda view: view.__name__)
def test_every_field_is_named(view: type) -> None:
    assert [field.name for field in dataclasses.fields(view) if f"`{field.name}`" not in PAGE] == []


def test_every_path_and_parameter_is_named(dashboard: Dashboard) -> None:
    for path, operations in dashboard.api("/openapi.json")["paths"].items():
        assert path.replace("{workflow_id}", "{id}") in PAGE
        for parameter in operations["get"].get("parameters", []):
            assert f"`{parameter['name']}`" in PAGE or f"{{{parameter['name']}}}" in PAGE or parameter["in"] == "path"
