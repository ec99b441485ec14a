"""The subcommands of `ensk`: each is imported when it is run, so that no command pays for the others' imports."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ensemble_kit.cli.common import command
from ensemble_kit.cli.values import take_as_typed

COMMANDS = {
    "dump-logits": "Run a model on images and store its logits.",
    "tune-thresholds": "Find the optimal thresholds, or factors of argmax.",
    "vote": "Combine members into one set of masks and write it.",
    "fuse": "Fuse stores and keep the scores.",
    "stack": "Fit a second stage that sees the members' logits.",
    "merge": "Put the parts of a run together.",
    "review": "Rank samples for review, without truth.",
    "report": "Write one HTML page: the score, its classes, where it is wrong.",
    "draw": "Draw masks on their images.",
    "score": "Score masks against the ground truth.",
    "inspect": "Show what a store, a threshold set or a mask file holds.",
    "verify": "Check every checksum of a store.",
    "repair": "Keep what is sound in a damaged store.",
    "convert": "Convert masks between formats.",
    "explain": "Explain an error code.",
    "demo": "Run the whole chain on real networks and real images.",
    "doctor": "Show what this machine has: versions, threads, devices.",
}
"""What `ensk --help` says of each. A command is the function of its name, in the module of its name."""

SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""Of Typer, for `ensk` and each of its commands."""


def function_of(name: str) -> Callable[..., None]:
    """Import a command's function, with the options that all commands share."""
    word = name.replace("-", "_")
    return command(getattr(import_module(f"ensemble_kit.cli.{word}"), word))


class _Command(TyperCommand):
    """A command whose values are converted only where they need to be."""

    def get_params(self, ctx: Any) -> Any:
        """List the parameters, --help among them."""
        kinds = inspect.unwrap(self.callback).__annotations__ if self.callback else {}
        return [take_as_typed(p, kinds.get(p.name, bool)) for p in super().get_params(ctx)]


class Commands(TyperGroup):
    """A group that makes a command when it is asked for."""

    def get_params(self, ctx: Any) -> Any:
        """List the options of `ensk` itself, which are all on or off."""
        return [take_as_typed(p, bool) for p in super().get_params(ctx)]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is Typer's
        """List the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the signature is Typer's
        """Import a command; None where there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        alone = typer.Typer(**SETTINGS)
        alone.command(cmd_name, cls=_Command)(function_of(cmd_name))
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the signature is Typer's
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Let Typer suggest the name that was meant."""
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # its suggestions look here
        return super().resolve_command(ctx, args)
