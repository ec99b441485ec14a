"""The user's own code by its name, `module:callable`: a model or a metric."""

from __future__ import annotations

import importlib
import sys
from operator import attrgetter
from pathlib import Path, PurePath
from typing import Any

from ensemble_kit.errors import UsageError


def import_named(code: str, what: str, name: str) -> Any:
    """Import what `module:callable` names; this runs the module's code. Its folder may be the current directory.

    Parameters
    ----------
    code, what : of the error, and what is imported, such as "a model".
    name : the text as the user wrote it.

    Raises
    ------
    UsageError
        With `code`: a file is named instead of a module, or the import fails for any reason.
    """
    module, _, attribute = name.partition(":")
    file = PurePath(module)
    if file.suffix == ".py":
        where = f"run in {file.parent} and " if file.is_absolute() else ""
        own = file.stem if file.is_absolute() else ".".join(file.with_suffix("").parts)
        item, fix = f"{name!r} names a file, not a module", f"{where}pass {own}:{attribute}"
        raise UsageError(code, f"cannot import {what}", item=item, fix=fix)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # stays: a module may import others when it is called
    try:
        return attrgetter(attribute)(importlib.import_module(module))
    except Exception as error:
        item = f"{name!r}: {type(error).__name__}: {error}"
        fix = "pass module:callable, of a module in the current directory or of an installed package"
        raise UsageError(code, f"cannot import {what}", item=item, fix=fix) from error
