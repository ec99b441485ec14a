"""A start collects no garbage, and what runs after it is collected as ever (DESIGN 105)."""

from __future__ import annotations

import subprocess
import sys

START = """
import atexit, gc, sys
def told():
    print(sum(kind["collections"] for kind in gc.get_stats()) - before, gc.get_freeze_count() > 0)
atexit.register(told)  # the first that is registered is called last
from ensemble_kit.__main__ import main
sys.argv = ["ensk", "doctor", "--help"]
before = sum(kind["collections"] for kind in gc.get_stats())
main()
"""

AFTERWARDS = """
import gc, weakref
from ensemble_kit.cli import starting
usual = gc.get_threshold()
starting.collect_later()
later = gc.get_threshold()
kept = [[] for _ in range(starting.OF_A_START + 1)]
print(later != usual, gc.get_threshold() == usual, gc.get_freeze_count() > len(kept), gc.callbacks)
class Node: pass
node = Node(); node.itself, gone = node, weakref.ref(node)
del node
more = [[] for _ in range(99 * usual[0])]
print(gone() is None)
"""


def output(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()


def test_a_start_collects_nothing() -> None:
    assert output(START)[-1] == "0 True"


def test_garbage_is_collected_after_the_start() -> None:
    assert output(AFTERWARDS) == ["True True True []", "True"]
