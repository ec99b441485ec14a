"""`Stack`: a fitted second stage, its file, and what it writes of other samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import check_path
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.recipes.stack_scores import StackScores
from ensemble_kit.recipes.stack_store import Stacked, StackedStore, applied
from ensemble_kit.stacking.model import StackModel


@dataclass(frozen=True)
class Stack:
    """A fitted second stage.

    Parameters
    ----------
    model : its coefficients.
    scores : what its out-of-fold logits score; None of one that was read from a file.

    Examples
    --------
    >>> import ensemble_kit as ek
    >>> stack = ek.fit_stack(ek.Ensemble(["a.zarr", "b.zarr"]), truth, "stacked.zarr")  # doctest: +SKIP
    >>> stack.apply(ek.Ensemble(["test_a.zarr", "test_b.zarr"]), "test_stacked.zarr")  # doctest: +SKIP
    """

    model: StackModel
    scores: StackScores | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.model.classes

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members, sorted."""
        return tuple(m.name for m in self.model.members)

    @property
    def digest(self) -> str:
        """Hex digest of the model, which every store that it writes records."""
        return self.model.digest

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model's file, JSON; complete, or nothing."""
        check_path(path)
        self.model.save(Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Stack:
        """Read a model's file; nothing in it is executed.

        Raises
        ------
        IncompleteError
            There is no such file.
        DamagedError
            It is not a stack, or holds impossible values.
        """
        check_path(path)
        return cls(StackModel.load(Path(path)))

    def applied(
        self, ensemble: Ensemble, out: str | os.PathLike[str], member: str = "stack", overwrite: bool = False
    ) -> StackedStore:
        """Return the store that `apply` would write, after its checks.

        Raises
        ------
        MismatchError
            Other members, classes, models or another activation than the stack was fitted on.
        UsageError
            The stores that it was fitted on, `out` is a member.
        """
        return applied(self.model.fitted, ensemble, out, member, overwrite)

    def apply(
        self,
        ensemble: Ensemble,
        out: str | os.PathLike[str],
        member: str = "stack",
        overwrite: bool = False,
        jobs: int | None = None,
        executor: Given = None,
        listener: Listener = nobody,
    ) -> Stacked:
        """Write the stacked logits of other samples, by the coefficients that were fitted on all samples.

        A set that was tuned on the out-of-fold store fits what is written here.

        Parameters
        ----------
        ensemble : the same members on other samples, such as the test set; how it is fused makes no difference.
        out : path of the store; an unfinished one is resumed.
        member : name of the store as a member: that of the out-of-fold store.
        overwrite : replace the store that is there.
        jobs, executor, listener : as for `Ensemble.vote`.

        Raises
        ------
        MismatchError
            Other members, classes, models or another activation than the stack was fitted on.
        UsageError
            The stores that it was fitted on, `out` is a member.
        ResourceError
            The disk is too small; nothing was written.
        """
        where = chosen(executor, jobs, listener)
        return self.applied(ensemble, out, member, overwrite).write(self.model, where, listener)
