"""The catalogue of faults is covered: every id is tried, is tried elsewhere, or has a stated reason."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import harness as h
import pytest

HERE = Path(__file__).parent
FAMILIES = {
    "S": "test_store_at_rest", "W": "test_writing", "C": "test_many_processes", "E": "test_rle", "F": "test_csv",
    "N": "test_numerics", "M": "test_matching", "T": "test_tuning_faults", "X": "test_security", "L": "test_load",
    "R": "test_remote_faults", "P": "test_supply_chain",
}  # fmt: skip


def functions_of(path: Path) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_fault_is_tried_or_has_a_reason(family: str) -> None:
    module = importlib.import_module(FAMILIES[family])
    tables = [{c.id for c in module.CASES}, set(module.ALONE), set(module.ELSEWHERE), set(module.NOT_HERE)]
    assert set.union(*tables) == {family + n for n in h.CATALOGUE[family].split()}
    stated = set(module.NOT_HERE)
    assert not stated & set.union(*tables[:3]), "tried, and said not to be"
    own = functions_of(HERE / f"{FAMILIES[family]}.py")
    for name in module.ALONE.values():
        assert name in own, name
    for places in module.ELSEWHERE.values():
        for place in re.split(r",\s*", places):
            file, _, name = place.partition("::")
            assert name in functions_of(HERE.parent / file), place
    for reason in module.NOT_HERE.values():
        assert len(reason) > 20, reason
