"""The principle: what can be read in two ways is refused, with the option of each reading, and each option works."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases.ambiguous import CSVS, Situation
from cases.running import ensk, refused

EVERY = CSVS


@pytest.mark.slow
@pytest.mark.parametrize("situation", EVERY, ids=lambda s: s.id)
def test_both_readings_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, situation: Situation) -> None:
    monkeypatch.chdir(tmp_path)
    command = situation.make(tmp_path)
    said = refused(situation.code, 2, *command)
    for reading in situation.readings:
        assert reading in said
    assert len(list(tmp_path.glob("out*"))) == 0
    for options in situation.readings.values():
        ensk(*command, *options, "--force")
