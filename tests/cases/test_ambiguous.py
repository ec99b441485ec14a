"""The principle: what can be read in two ways is refused, with the option of each reading, and each option works."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases.ambiguous import CSVS, Situation
from cases.ambiguous_others import OTHERS
from cases.running import ensk, refused

EVERY = (*CSVS, *OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize("situation", EVERY, ids=lambda s: s.id)
def test_both_readings_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, situation: Situation) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # a network of one's own is found beside the command
    command = situation.make(tmp_path)
    said = refused(situation.code, situation.exit_code, *command)
    for reading in situation.readings:
        assert reading in said
    assert len(list(tmp_path.glob("out*"))) == 0
    for options in situation.readings.values():
        ensk(*command, *options, "--force")
