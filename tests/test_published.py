"""The results in the README are those of the records that are kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs.site.results import STANDINGS, read_records

from inbackward_conformance.adapters.find import known_implementations
from inbackward_conformance.report.matrix.table import Matrix

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `([\w-]+)`[^|]*\| (\w[\w ]*) \| ([\d |]+) \| (\d+) of (\d+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    found = read_records(sorted((ROOT / "docs" / "records").glob("*.jsonl.xz")))
    assert found
    return found


def test_every_implementation_that_has_an_adapter_has_a_column(matrix: Matrix) -> None:
    assert {column.implementation for column in matrix.columns} == {*known_implementations()}
    assert len(matrix.columns) >= 12


def test_the_table_of_the_readme(matrix: Matrix) -> None:
    rows = {name: rest for name, *rest in ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    expected = {}
    for column in matrix.columns:
        musts, shoulds = column.levels["MUST"], column.levels["SHOULD"]
        counts = " | ".join(str(musts.get(name, 0)) for name in STANDINGS[:-1])
        expected[column.implementation] = [column.verdict, counts, str(shoulds["kept"]), str(sum(shoulds.values()))]
    assert rows == expected
