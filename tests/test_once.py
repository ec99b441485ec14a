"""`once`: a value is made when it is first asked for, and threads do not wait for each other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from ensemble_kit.once import once


class Counted:
    """Something that takes long to make, and waits until another one is being made too."""

    def __init__(self, together: threading.Barrier) -> None:
        self._together, self.made = together, 0

    @once
    def value(self) -> int:
        """What it is."""
        self.made += 1
        return self._together.wait(timeout=60)


def test_a_value_is_made_once_and_kept() -> None:
    counted = Counted(threading.Barrier(1))
    assert counted.value == counted.value == 0
    assert (counted.made, counted.__dict__["value"]) == (1, 0)
    assert Counted.value.__doc__ == "What it is."


def test_values_of_two_objects_are_made_at_the_same_time() -> None:
    together = threading.Barrier(2)
    objects = [Counted(together), Counted(together)]
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lambda one: one.value, objects)) == [0, 1]
