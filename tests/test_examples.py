"""The examples run as they stand."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.stem)
def test_example_runs(file, capsys):
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out
