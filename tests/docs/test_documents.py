"""What the documents say is true: code runs, links lead somewhere, the rules of the house hold."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import workledger

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)(#[^)]*)?\)")


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_between_documents_leads_somewhere(document):
    links = [link for link, _ in LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "docs/tutorial/first-workflow.md"], ids=name)
def test_the_first_code_a_newcomer_meets_runs_as_written(document, database_url, tmp_path):
    code = re.search(r"```python\n(.*?)```", document.read_text(), re.DOTALL)[1]
    script = tmp_path / "first.py"
    script.write_text(code)
    environment = {**os.environ, "WORKLEDGER_DATABASE_URL": database_url}
    run = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_a_module_is_under_500_lines(source):
    assert len(source.read_text().splitlines()) < 500


def test_the_public_names_are_these():
    assert sorted(workledger.__all__) == ["Ledger", "Usage", "__version__", "open"]
    for public in workledger.__all__:
        assert getattr(workledger, public)


def test_the_architecture_names_every_folder():
    text = (ROOT / "docs/explanation/architecture.md").read_text()
    folders = {path.name for path in (ROOT / "src/workledger").iterdir() if (path / "__init__.py").exists()}
    assert {folder for folder in folders if folder not in text} == set()


def test_the_architecture_names_every_arrow_between_stores():
    text = (ROOT / "docs/explanation/architecture.md").read_text()
    flows = {path.stem for path in (ROOT / "src/workledger/flows").glob("log_to_*.py")}
    assert {flow for flow in flows if flow not in text} == set()


def test_no_document_carries_a_path_of_somebodys_machine():
    private = re.compile(r"(?<![\w.])/(root|home|work)/")
    assert [name(path) for path in [*DOCUMENTS, *SOURCES] if private.search(path.read_text())] == []
