"""The wheel has everything in it: built, installed in a clean environment, and used from there."""

import os
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest

import workledger
from workledger.cli._diagnosis import _EXTRAS

ROOT = Path(__file__).parents[2]
PACKAGE = Path(workledger.__file__).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    files = {
        f"workledger/{path.relative_to(PACKAGE)}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        assert files - set(archive.namelist()) == set()
    assert any(name.endswith(".sql") for name in files)
    assert any("/static/" in name for name in files)


def test_it_records_from_a_clean_environment_with_nothing_but_its_own_dependencies(wheel, database_url, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, stdin=subprocess.DEVNULL)
    program = textwrap.dedent("""
        import workledger
        with workledger.open() as ledger:
            with ledger.start_workflow("clean", workflow_id="clean") as run, run.task("t") as task:
                task.output = 1
            print(ledger.get_workflow("clean").status)
    """)
    environment = {"PATH": os.defpath, "WORKLEDGER_DATABASE_URL": database_url}
    ran = subprocess.run(
        [python, "-W", "error", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == ("completed\n", "")
    listed = subprocess.run(
        [tmp_path / "venv" / "bin" / "workledger", "show", "clean", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr
    assert '"completed"' in listed.stdout


def test_the_doctor_knows_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) - {"all"} <= set(_EXTRAS)
