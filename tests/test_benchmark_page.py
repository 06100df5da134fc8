"""The page of benchmarks: tables are tables, and a benchmark that fails does not end it."""

import importlib

import pytest
from benchmarks.page import FIGURES, Figure, markdown, page


def test_rows_become_tables_and_all_else_is_code():
    found = markdown(["torch 2", "name | ratio", "alexnet | 4.4", "", "more"])
    assert found == "```\ntorch 2\n```\n\n| name | ratio |\n| --- | --- |\n| alexnet | 4.4 |\n\n```\nmore\n```"


def test_the_page_has_machine_command_and_what_was_printed():
    found = page(
        [
            Figure("one", "Version", "Nothing to compare.", "pip --version"),
            Figure("two", "Missing", "Never.", "benchmarks.no_such_benchmark"),
        ]
    )
    assert "cores" in found
    assert "torch" in found
    assert "## Version\n\nNothing to compare.\n\n`python -m pip --version` (" in found
    assert "```\npip " in found
    assert "Not measured: " in found
    assert "No module named benchmarks.no_such_benchmark" in found


def test_names_are_distinct():
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


@pytest.mark.parametrize("module", sorted({figure.command.split()[0] for figure in FIGURES}))
def test_every_benchmark_is_there(module):
    assert callable(importlib.import_module(module).main)


def test_the_stages_that_the_replication_times_exist():
    replication = importlib.import_module("benchmarks.replication")
    assert all(callable(getattr(replication.experiment, name)) for name in replication.STAGES)
