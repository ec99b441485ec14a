"""`Verification`: what comparing every sample of a store with its checksum found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """A committed sample that cannot be read."""

    sample: str
    key: str
    reason: str


@dataclass(frozen=True)
class Verification:
    """What `LogitStore.verify` found.

    Parameters
    ----------
    path : the store.
    samples : how many are declared.
    checked : how many committed ones were read and compared.
    damaged : those whose bytes are not what was written, with the reason.
    missing : those that were never committed.
    unknown : files in the array's folder that belong to no sample.
    bytes : payload read.
    """

    path: str
    samples: int
    checked: int
    damaged: tuple[Damage, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    bytes: int

    @property
    def sound(self) -> bool:
        """Nothing is damaged and nothing is missing."""
        return not self.damaged and not self.missing
