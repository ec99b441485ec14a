"""The fits of classes that are done, kept beside the model's file until it is whole, so that a killed run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, MismatchError
from ensemble_kit.files import atomic_write
from ensemble_kit.stacking.fit import ClassFit
from ensemble_kit.stacking.model import told

FORMAT = "ensk.stack-fits/1"


class KeptFits:
    """Fits by class in a file of their own, which is written anew, whole, with each class.

    Parameters
    ----------
    path : of the file; it need not exist.
    plan : digest of all that the fits depend on.
    shape : (folds, features) of a class.
    afresh : whether what is there is left out of account, and replaced.

    Raises
    ------
    MismatchError
        The file holds fits of another plan.
    DamagedError
        It holds something else.
    """

    def __init__(self, path: Path, plan: str, shape: tuple[int, int], afresh: bool = False) -> None:
        self._path, self._plan, self._shape = path, plan, shape
        self._fits: dict[str, ClassFit] = {}
        if path.is_file() and not afresh:
            self._fits = self._read()

    def __contains__(self, name: str) -> bool:
        return name in self._fits

    def __getitem__(self, name: str) -> ClassFit:
        return self._fits[name]

    def add(self, name: str, fit: ClassFit) -> None:
        """Keep the fit of one more class."""
        self._fits[name] = fit
        classes = {
            n: {"strengths": list(f.strengths), "folds": f.by_fold.tolist(), "all": f.of_all.tolist()}
            for n, f in sorted(self._fits.items())
        }
        with atomic_write(self._path) as out:
            out.write(strict_json.dump({"format": FORMAT, "plan": self._plan, "classes": classes}))

    def remove(self) -> None:
        """Remove the file, once the model's own is whole."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, ClassFit]:
        fix = "pass another --model or --out, or run with --force, and all classes are fitted again"
        try:
            d = strict_json.load(self._path)
            if d["format"] != FORMAT:
                raise ValueError(f"its format is {d['format']!r}, not {FORMAT!r}")
            if d["plan"] != self._plan:
                item = f"{self._path} holds fits of other members, truth, folds or options"
                raise MismatchError("stack-differs", "cannot resume a stack of another run", item=item, fix=fix)
            return {name: self._fit(fit) for name, fit in d["classes"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, MismatchError):
                raise
            item = told(self._path, error)
            raise DamagedError("stack-model-invalid", "cannot resume a stack", item=item, fix=fix) from None

    def _fit(self, d: dict[str, Any]) -> ClassFit:
        folds, features = self._shape
        fit = ClassFit(tuple(map(float, d["strengths"])), np.array(d["folds"], float), np.array(d["all"], float))
        if fit.by_fold.shape != self._shape or fit.of_all.shape != (features,) or len(fit.strengths) != folds + 1:
            raise ValueError(f"coefficients of shape {fit.by_fold.shape} instead of {self._shape}")
        return fit
