"""How every script of this example ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ensemble_kit import EnskError


def run(main: Callable[[], None]) -> None:
    """Run a script; an error that a user can mend is one line on stderr, with the kit's exit codes."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it of SIGINT
    except EnskError as error:
        print(f"error[{error.code}] {error}", file=sys.stderr)
        sys.exit(error.exit_code)
