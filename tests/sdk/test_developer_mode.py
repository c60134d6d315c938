"""A program that uses everything runs in Python's developer mode with every warning an error, and says nothing."""

from chaos.attack import run_program


def test_a_program_that_uses_everything_leaves_no_warning_and_nothing_open(database_url, tmp_path):
    options = ("-X", "dev", "-W", "error")
    assert run_program("everything", database_url, tmp_path, options=options) == "done\n"
