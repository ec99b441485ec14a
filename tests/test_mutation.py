"""What mutation testing goes by: names that stay when a function moves."""

from __future__ import annotations

import pytest

import mutation


@pytest.mark.slow
def test_every_explanation_is_of_a_mutant_that_exists() -> None:
    made = {m.name for subject in mutation.TESTS for m in mutation.mutants(mutation.home(subject).read_text())}
    assert set(mutation.EXPLAINED) <= made


def test_a_mutant_keeps_its_name_where_its_function_moves_or_is_laid_out_anew() -> None:
    one = "import math\n\n\nclass A:\n    def f(self, x):\n        y = x + 1  # why\n        return y > 2\n"
    other = "class B:\n    pass\n\n\nclass A:\n    def f(self, x):\n        y = (\n            x\n            + 1\n        )\n        return y > 2\n"
    names = [m.name for m in mutation.mutants(one)]
    assert names == [m.name for m in mutation.mutants(other)]
    assert "A.f: y = x + 1  [x + 1 → x - 1]" in names
    assert "A.f: return y > 2  [y > 2 → y >= 2]" in names
