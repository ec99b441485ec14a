"""The store against a model, by whatever way it is used: written, killed, damaged, repaired, resumed, by two writers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import harness as h
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import ensemble_kit as ek
from ensemble_kit.errors import DamagedError, IncompleteError, LockedError
from ensemble_kit.logits.repair import repair

ROWS = st.integers(0, len(h.IDS) - 1)


class Store(RuleBasedStateMachine):
    """What the model knows: the bytes of each committed sample, and which chunks were damaged since."""

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "m.zarr"
        self.writers: list[ek.LogitWriter] = []
        self.held: dict[int, int] = {}
        self.damaged: set[int] = set()
        self.open()

    @rule()
    def open(self) -> None:
        if len(self.writers) < 2:
            self.writers.append(ek.LogitWriter(self.path, h.CLASSES, h.IDS, h.GRID, member="m"))

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 1), row=ROWS, seed=st.integers(0, 1))
    def write(self, who: int, row: int, seed: int) -> None:
        writer = self.writers[who % len(self.writers)]
        array = h.logits(seed)[row]
        if row in self.held and row not in self.damaged and self.held[row] != seed:
            with pytest.raises(LockedError):
                h.write(writer, h.IDS[row], array)
            return
        h.write(writer, h.IDS[row], array)
        self.held[row] = seed
        self.damaged.discard(row)

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 1), row=ROWS, seed=st.integers(0, 2))
    def write_again(self, who: int, row: int, seed: int) -> None:
        """Replace a sample, whatever there is of it."""
        h.write(self.writers[who % len(self.writers)], h.IDS[row], h.logits(seed)[row], again=True)
        self.held[row] = seed
        self.damaged.discard(row)

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 1))
    def flush(self, who: int) -> None:
        self.writers[who % len(self.writers)].flush()

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 1))
    def close(self, who: int) -> None:
        self.writers.pop(who % len(self.writers)).close()

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 1))
    def kill(self, who: int) -> None:
        """Let go of everything as a kill does: nothing is synced, locks vanish, the page cache stays."""
        self.writers.pop(who % len(self.writers)).abandon()

    @precondition(lambda self: self.held)
    @rule(row=ROWS, how=st.sampled_from(["gone", "cut", "flip"]))
    def damage(self, row: int, how: str) -> None:
        """Damage a chunk that was synced and marked; an unmarked one that is not whole is missing, not damaged."""
        for writer in self.writers:
            writer.flush()
        if not self.writers:  # the next writer takes over what was never synced
            ek.LogitWriter(self.path, h.CLASSES, h.IDS, h.GRID, member="m").close()
        path = h.chunk(self.path, row)
        if row not in self.held or row in self.damaged:
            return
        if how == "gone":
            path.unlink()
        else:
            h.edit(path, lambda raw: raw[:-1] if how == "cut" else raw[:7] + bytes([raw[7] ^ 1]) + raw[8:])
        self.damaged.add(row)

    @precondition(lambda self: not self.writers)
    @rule()
    def repair(self) -> None:
        done = repair(self.path)
        assert done.kept == len(self.held) - len(self.damaged)
        for row in self.damaged:
            del self.held[row]
        self.damaged.clear()
        assert ek.LogitStore(self.path).verify().damaged == ()

    @invariant()
    def reads_are_true(self) -> None:
        if not hasattr(self, "path"):
            return
        store = ek.LogitStore(self.path)
        for row, name in enumerate(h.IDS):
            if row in self.held and row not in self.damaged:
                assert np.array_equal(h.read(store, name), h.logits(self.held[row])[row])
                continue
            with pytest.raises((DamagedError, IncompleteError)):
                h.read(store, name)
        found = store.verify()
        assert {d.sample for d in found.damaged} <= {h.IDS[r] for r in self.damaged}
        assert set(found.missing) >= {h.IDS[r] for r in range(len(h.IDS)) if r not in self.held}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for writer in self.writers:
                writer.close()
            shutil.rmtree(self.folder)


@pytest.mark.usefixtures("form")
def test_a_store_is_what_its_model_says() -> None:
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
