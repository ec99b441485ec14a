"""What the system says of a path that is read, in our words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ensemble_kit.errors import EnskError, IncompleteError, ResourceError

_DENIED = {errno.EACCES, errno.EPERM}


@contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn the system's errors into ours where a path is read.

    Parameters
    ----------
    path : named where the system names none.
    what : what cannot be done, such as "cannot read masks".

    Raises
    ------
    IncompleteError
        There is nothing at the path.
    ResourceError
        It may not be read, a disk fails, no more files can be opened.
    """
    try:
        yield
    except EnskError:
        raise
    except OSError as error:
        where = os.fspath(path if error.filename is None else error.filename)
        item = f"{where}: {error.strerror or error}"
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise IncompleteError("input-missing", what, item=item, fix="check the path") from None
        if error.errno in _DENIED:
            item, fix = f"{where} as uid {os.getuid()}", "give this user the right to read it and its folders"
            raise ResourceError("permission", what, item=item, fix=fix) from None
        limit = "raise the limit of open files (ulimit -n)"
        fix = limit if error.errno == errno.EMFILE else "check the path and the disk"
        raise ResourceError("io", what, item=item, fix=f"{fix}, then run again") from None
