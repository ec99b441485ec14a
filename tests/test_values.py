"""Values of options are what Typer makes of them, whether it was asked or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from ensemble_kit.cli import app
from ensemble_kit.cli.commands import COMMANDS

GROUP: Any = typer.main.get_command(app.app)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_value_is_what_typer_makes_of_it(name: str) -> None:
    command = GROUP.get_command(None, name)
    context = command.context_class(command, info_name=name)
    seen = 0
    for parameter in command.get_params(context):
        several = parameter.multiple or parameter.nargs == -1
        for value in (
            None,
            parameter.get_default(context),
            "text",
            "a/b.csv",
            "ü",
            "\udcff",
            "",
            "7",
            "0",
            "-7",
            "+7",
            "007",
            "7_0",
            "٧",
            " 7",
            "123456789012345678901",
            "0.5",
            "5.",
            ".5",
            "1e-3",
            "0.1234567890123456789",
            "-0.5",
            Path("x"),
        ):
            given = [value, value] if several and not isinstance(value, list | tuple | None) else value
            ours = outcome(parameter.process_value, context, given)
            theirs = outcome(lambda c, v, p=parameter: type(p).process_value(p, c, v), context, given)
            assert ours == theirs, (parameter.name, given)
            seen += 1
    assert seen > 80


def outcome(process: Any, context: Any, value: Any) -> Any:
    try:
        made = process(context, value)
    except Exception as error:  # noqa: BLE001 - compared with another
        return type(error), str(error)
    return [(type(v), v) for v in made] if isinstance(made, list | tuple) else (type(made), made)


def test_a_start_does_without_pydantic() -> None:
    program = (
        "import sys; from ensemble_kit.cli import app\n"
        "try: app.main(['explain', 'usage'])\n"
        "finally: print('pydantic' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "False\n")
