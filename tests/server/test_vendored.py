from __future__ import annotations

import hashlib
import tomllib
from importlib import resources

OWN = {"dashboard.css", "dashboard.js", "favicon.svg", "VENDORED.toml"}


def static():
    return resources.files("workledger.server").joinpath("static")


def vendored() -> list[dict]:
    return tomllib.loads(static().joinpath("VENDORED.toml").read_text("utf-8"))["file"]


def test_every_file_that_others_wrote_is_listed_with_its_licence() -> None:
    names = {entry.name for entry in static().iterdir()}
    assert names - OWN == {file["name"] for file in vendored()}
    for file in vendored():
        assert all(file[key] for key in ("project", "version", "source", "homepage", "licence"))
        assert "Permission to use" in file["licence_text"]


def test_every_file_that_others_wrote_is_exactly_what_was_listed() -> None:
    for file in vendored():
        content = static().joinpath(file["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert file["version"].encode() in content


def test_our_own_pages_hold_no_script_no_style_and_no_foreign_address() -> None:
    for entry in resources.files("workledger.server").joinpath("templates").iterdir():
        text = entry.read_text("utf-8")
        assert " style=" not in text
        assert "<style" not in text
        assert " on" + "click" not in text
        assert "https://" not in text
        assert "|safe" not in text
    for name in ("dashboard.css", "dashboard.js"):
        assert "http" not in static().joinpath(name).read_text("utf-8")
