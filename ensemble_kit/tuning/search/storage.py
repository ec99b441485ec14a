"""Storage: finished trials in an Optuna storage, which one process at a time uses, with errors in plain words."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ensemble_kit.errors import DamagedError, EnskError, LockedError, MismatchError, ResourceError, UsageError, some
from ensemble_kit.tuning.search.samplers import Dimension, Params, Trial, distributions

_ATTRIBUTE = "ensemble_kit"  # the study's user attribute that says what it is a study of
_SQLITE = "sqlite:///"
_UNUSABLE = "cannot use a study's storage"


def check_storage(url: str) -> None:
    """Refuse, before any work, a storage that cannot be used.

    Raises
    ------
    UsageError
        Its folder does not exist, its URL or driver is unknown, or Optuna has to upgrade it.
    DamagedError, ResourceError
        It cannot be read, or not be opened.
    """
    import optuna

    folder = Path(url.removeprefix(_SQLITE)).absolute().parent
    if url.startswith(_SQLITE) and not folder.is_dir():
        raise _unusable(url, f"{str(folder)!r} is not a folder", "make the folder first, or pass another --storage")
    with quiet(), _worded(url):
        optuna.storages.RDBStorage(url)


class Stored:
    """A study in an Optuna storage: plain parameters, values, and one attribute that says what it is a study of.

    Parameters
    ----------
    url, name : the storage, and the study's name in it.
    identity : what it is a study of; a stored one of something else is refused.

    Raises
    ------
    MismatchError
        The stored study is of something else.
    UsageError, DamagedError, ResourceError
        As for `check_storage`.
    """

    def __init__(self, url: str, name: str, dimensions: Sequence[Dimension], identity: dict[str, Any]) -> None:
        import optuna

        self._optuna, self._url, self._name, self._dimensions = optuna, url, name, dimensions
        with _worded(url):
            storage = optuna.storages.RDBStorage(url)
            known = name in [s.study_name for s in optuna.get_all_study_summaries(storage)]
            self._study = optuna.create_study(
                study_name=name, storage=storage, direction="maximize", load_if_exists=True
            )
            found = self._study.user_attrs.get(_ATTRIBUTE)
            empty = known and found is None and not self._study.trials  # killed between the two lines
            if not known or empty:
                self._study.set_user_attr(_ATTRIBUTE, identity)
                found = identity
        if found != identity or self._study.direction.name != "MAXIMIZE":
            differing = [k for k in identity if not isinstance(found, dict) or found.get(k) != identity[k]]
            raise MismatchError(
                "study-differs",
                "cannot resume this study",
                item=f"{name!r} in {_shown(url)} is of another {some(differing or ['direction'], 9)}",
                fix="pass another --study name, or the same ensemble, truth, objective and --search as before",
            )

    def history(self) -> list[Trial]:
        """Return the finished trials, in order.

        Raises
        ------
        DamagedError
            A trial outside the search space, or without a finite value.
        """
        with _worded(self._url):
            trials = [t for t in self._study.trials if t.state.name == "COMPLETE"]
        out = []
        for trial in trials:
            sound = set(trial.params) == {d.name for d in self._dimensions} and all(
                d.holds(trial.params[d.name]) for d in self._dimensions
            )
            if not sound or trial.value is None or not math.isfinite(trial.value):
                item = f"trial {trial.number} of {self._name!r} has {trial.params} and value {trial.value}"
                raise DamagedError(
                    "study-invalid", "cannot resume this study", item=item, fix="pass another --study name"
                )
            out.append((dict(trial.params), float(trial.value)))
        return out

    def add(self, params: Params, value: float) -> None:
        """Store a finished trial in one transaction: it is there, or not at all."""
        with _worded(self._url):
            space = distributions(self._dimensions)
            self._study.add_trial(self._optuna.trial.create_trial(params=params, distributions=space, value=value))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's log off the terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Keep other processes from the file of an SQLite storage: two would each propose the same trials.

    Raises
    ------
    LockedError
        Another process holds it.
    """
    if not url.startswith(_SQLITE):
        yield
        return
    path = Path(url.removeprefix(_SQLITE))
    lock = path.with_name(path.name + ".lock")
    with lock.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lock.exists() or not os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                raise BlockingIOError  # its last holder removed it between our two lines
        except BlockingIOError:
            raise LockedError(
                "study-locked",
                "cannot resume this study",
                item=f"{str(path)!r} is in use by another process",
                fix="wait for it to end, or pass another --storage",
            ) from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _worded(url: str) -> Iterator[None]:
    """Raise what Optuna and its database raise as errors of ours."""
    import optuna
    import sqlalchemy.exc as sql

    try:
        yield
    except EnskError:
        raise
    except (sql.ArgumentError, sql.NoSuchModuleError, ImportError) as error:
        fix = "pass a URL such as sqlite:///study.db, and install its driver if it needs one"
        raise _unusable(url, error, fix) from None
    except RuntimeError as error:  # Optuna: the table schema is of another version
        upgrade = "run: optuna storage upgrade --storage URL, or pass another --storage"
        raise _unusable(url, error, upgrade, "storage-version") from None
    except (optuna.exceptions.StorageInternalError, sql.SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        if isinstance(cause, sql.OperationalError):
            item = f"{_shown(url)}: {_brief(url, cause)}"
            raise ResourceError(
                "storage-io", _UNUSABLE, item=item, fix="check its folder, permissions and free space"
            ) from None
        raise _damaged(url, cause or error) from None
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise _damaged(url, error) from None


def _unusable(url: str, why: object, fix: str, code: str = "storage-invalid") -> UsageError:
    return UsageError(code, _UNUSABLE, item=f"{_shown(url)}: {_brief(url, why)}", fix=fix)


def _damaged(url: str, error: BaseException) -> DamagedError:
    return DamagedError(
        "storage-damaged",
        "cannot read a study",
        item=f"{_shown(url)}: {_brief(url, error)}",
        fix="pass another --storage; nothing in this one was changed",
    )


def _shown(url: str) -> str:
    """Write a storage's URL without its user, its password and the values of its query."""
    scheme, _, rest = url.partition("://")
    user, _, host = rest.rpartition("@")
    place, asked, _ = host.partition("?")
    return repr(f"{scheme}://{'…@' if user else ''}{place}{'?…' if asked else ''}" if rest else scheme)


def _brief(url: str, error: object) -> str:
    """Return the first line of a driver's message; only its type where it may repeat a password or a key."""
    text = str(error).strip().split("\n")[0] or type(error).__name__
    user, _, host = url.partition("://")[2].rpartition("@")
    pieces = [user.partition(":")[2], *(v.partition("=")[2] for v in host.partition("?")[2].split("&"))]
    secrets = [s for piece in pieces for part in (piece, *piece.split("@")) for s in (part, unquote(part)) if s]
    return type(error).__name__ if any(s in text for s in secrets) else text
