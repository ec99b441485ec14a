"""A person's own code by its name, `module:callable`."""

from __future__ import annotations

import importlib
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any


def by_name(text: str) -> Any:
    """Import what `module:callable` names; the current directory can be imported from. This runs its code.

    Whatever the module raises passes through, ImportError and AttributeError among it.
    """
    module, _, attribute = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # stays: a network may import its parts late
    return attrgetter(attribute)(importlib.import_module(module))
