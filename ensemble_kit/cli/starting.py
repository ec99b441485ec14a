"""A start collects no garbage: nearly all that modules make while they are imported stays.

Python would look at all of it again and again while it grows, and once more at the end: a quarter of a start.
Light on purpose, as `signals`: `ensemble_kit.__main__` calls it before anything else is imported.
"""

import atexit
import gc

OF_A_START = 200_000
"""Containers that a command makes until its work begins are 140,000 (`gc.get_count()`), half of them garbage."""


def collect_later() -> None:
    """Collect for the first time after so many new containers as a start makes, and from then on as Python does."""
    usual = gc.get_threshold()

    def begin(phase: str, _: dict[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(begin)
            gc.set_threshold(*usual)
            gc.freeze()  # what is left is in use: it need not be looked at again

    gc.set_threshold(OF_A_START, *usual[1:])
    gc.callbacks.append(begin)
    atexit.register(gc.freeze)  # Python collects when it ends, before it gives all memory back
