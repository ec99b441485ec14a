"""Run commands in this process, and look at how they refuse."""

from __future__ import annotations

import pytest

import ensemble_kit as ek
from ensemble_kit.cli.app import app


def ensk(*arguments: object) -> None:
    app([str(a) for a in arguments], standalone_mode=False)


def refused(code: str, exit_code: int, *arguments: object) -> str:
    with pytest.raises(ek.EnskError) as caught:
        ensk(*arguments)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code), caught.value
    return str(caught.value)
