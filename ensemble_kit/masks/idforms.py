"""Forms of sample ids, by which two sides meet whose ids are written differently.

- path: the id with forward slashes, in Unicode's normal form C, without blanks at its ends
- name: the last part of that path
- stem: the name without its extension, where that is one of a file (`.png`, `.nii.gz`), not a part of a number
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, cast

from ensemble_kit.errors import UsageError, check_choice

IdForm = Literal["name", "stem", "path"]

FORMS: tuple[IdForm, ...] = ("name", "stem", "path")

_EXTENSIONS = (
    *(".nii.gz", ".ome.tiff", ".ome.tif", ".png", ".jpg", ".jpeg", ".jpe", ".jp2", ".tif", ".tiff", ".bmp", ".gif"),
    *(".webp", ".heic", ".avif", ".pgm", ".ppm", ".exr", ".dcm", ".dicom", ".nii", ".mha", ".mhd", ".nrrd", ".img"),
    *(".svs", ".ndpi", ".mrxs", ".czi", ".npy", ".npz", ".h5", ".mat", ".json", ".xml", ".txt", ".csv"),
)
"""Of images, masks and annotations. An id such as `1.2.840.113619` has none of them."""


def in_form(sample: str, form: IdForm) -> str:
    """Return an id in a form.

    Examples
    --------
    >>> [in_form("scans/a.nii.gz", form) for form in ("name", "stem")], in_form("1.2.840", "stem")
    (['a.nii.gz', 'a'], '1.2.840')
    """
    path = unicodedata.normalize("NFC", sample.strip().replace("\\", "/"))
    name = path.rstrip("/").rpartition("/")[2] or path
    if form == "path":
        return path
    if form == "name":
        return name
    found = next((end for end in _EXTENSIONS if name.lower().endswith(end) and len(name) > len(end)), "")
    return name[: len(name) - len(found)]


def of_path(path: str) -> str:
    """Return the id that a path in a file of annotations gives: the path, or its last part where it leads elsewhere.

    A Windows path, an absolute one and one with `..` are those of the machine that wrote the file.

    Examples
    --------
    >>> of_path("train/a.png"), of_path("../images/a.png"), of_path("/data/a.png")
    ('train/a.png', 'a.png', 'a.png')
    """
    elsewhere = "\\" in path or path.startswith("/") or ".." in path.split("/")
    return (last_part(path) or path) if elsewhere else path


def last_part(path: str) -> str:
    """Return what follows the last slash of either kind."""
    return path.replace("\\", "/").rpartition("/")[2]


def check_form(form: object) -> IdForm:
    """Refuse what is not a form of ids."""
    check_choice("--id", form, FORMS, "cannot make sample ids", "id-form")
    return cast(IdForm, form)


def names_in(samples: Sequence[str], form: IdForm, like: Iterable[str] | None = None) -> dict[str, str]:
    """Return the new id of every sample: its own in this form, or that of `like` which has the same.

    Raises
    ------
    UsageError
        Two samples, or two of `like`, become one.
    """
    check_form(form)
    theirs = by_form(like or (), form, doubled=True)
    ours = {sample: own for own, sample in by_form(samples, form).items()}
    return {sample: theirs.get(own, own) for sample, own in ours.items()}


def by_form(samples: Iterable[str], form: IdForm, doubled: bool = False) -> dict[str, str]:
    """Return the id of every form, or refuse two ids of one.

    Parameters
    ----------
    doubled : whether a list has every id in its form too, which is then taken: sizes by name and by stem.
    """
    listed = dict.fromkeys(samples)
    out: dict[str, str] = {}
    for sample in listed:
        own = in_form(sample, form)
        first = out.setdefault(own, own if doubled and own in listed else sample)
        if first != sample and not (doubled and first == own):
            item = f"{first!r} and {sample!r} are both {own!r} by --id {form}"
            longer = {"stem": "name", "name": "path"}.get(form)
            fix = f"pass --id {longer} (id={longer!r})" if longer else "rename one of the two"
            raise UsageError("id-clash", "cannot tell samples apart by id", item=item, fix=fix)
    return out


class _Difference(NamedTuple):
    """One way in which ids differ: in words, the form that joins them or "", and what makes them equal."""

    words: str
    form: str
    change: Callable[[str], str]


def _as_number(text: str) -> str:
    """Write whole numbers in one way: `7` for `0007`, as a spreadsheet has it, and for `7.0`, as pandas does."""
    found = re.fullmatch(r"0*([0-9]+)(\.0)?", text)
    return found[1] if found else text


_DIFFERENCES = (
    _Difference("in blanks at their ends", "path", str.strip),
    _Difference("in Unicode's normal form (NFC, NFD)", "path", lambda s: unicodedata.normalize("NFC", s)),
    _Difference("in \\ and /", "path", lambda s: s.replace("\\", "/")),
    _Difference("in several ways", "path", lambda s: in_form(s, "path")),
    _Difference("by their folders", "name", lambda s: in_form(s, "name")),
    _Difference("by their extensions", "stem", lambda s: in_form(s, "stem")),
    _Difference("in upper and lower case", "", str.casefold),
    _Difference("in case, and by folders or extensions", "", lambda s: in_form(s, "stem").casefold()),
    _Difference("in how numbers are written", "", lambda s: _as_number(in_form(s, "stem"))),
)


def _affixes(ours: Sequence[str], theirs: Sequence[str]) -> list[_Difference]:
    """Tell what the stems of one side end or begin with and those of the other do not, and what is left without it.

    Two ids of each side have to share it, and it has to hold a letter: img1 and img10 are others. So are train_1 and
    val_1, so that in front only one side may have it.
    """
    if min(len(ours), len(theirs)) < 2:
        return []
    ends = [_shared([in_form(s, "stem")[::-1] for s in side])[::-1] for side in (ours, theirs)]
    heads = [_shared([in_form(s, "stem") for s in side]) for side in (ours, theirs)]
    same_start, same_end = len(_shared(ends)), len(_shared([head[::-1] for head in heads]))
    behind = sorted((end[same_start:] for end in ends), key=len)
    before = sorted((head[: len(head) - same_end] for head in heads), key=len)
    out = []
    if any(map(str.isalpha, behind[1])):
        said = " and ".join(repr(end) for end in behind if end)
        out.append(_Difference(f"by {said} at their ends", "", lambda s: _without(in_form(s, "stem"), behind[::-1])))
    if any(map(str.isalpha, before[1])) and not before[0]:
        out.append(_Difference(f"by {before[1]!r} in front", "", lambda s: in_form(s, "stem").removeprefix(before[1])))
    return out


def _shared(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    first, last = min(texts), max(texts)
    return first[: next((k for k, c in enumerate(first) if c != last[k]), len(first))]


def _without(text: str, ends: Sequence[str]) -> str:
    found = next((end for end in ends if end and text.endswith(end)), "")
    return text[: len(text) - len(found)]


def difference(ours: Iterable[str], theirs: Iterable[str]) -> tuple[str, str] | None:
    """Tell how ids of two sides differ that mean the same samples: in words, and what makes them meet.

    None: no form makes any of them meet. Ids that only one side has may be left over.
    """
    a, b = set(ours), set(theirs)
    alone = sorted(a - b), sorted(b - a)
    best: tuple[int, _Difference] | None = None
    for found in (*_DIFFERENCES, *_affixes(*alone)):
        sides = [{found.change(s) for s in side} for side in alone]
        shared = len(sides[0] & sides[1] - {""})
        whole = all(len({found.change(s) for s in side}) == len(side) for side in (a, b))  # otherwise ids would clash
        if whole and shared > (best[0] if best else 0):
            best = shared, found
    if best is None:
        return None
    shared, (words, form, change) = best
    one, other = _pair(*alone, change)
    said = f"{shared} of {max(len(a), len(b))} ids differ only {words}: {one!r}, {other!r}"
    if not form:
        return said, f"rename the samples of one side, {one!r} to {other!r}, if they are the same: no --id joins these"
    return said, f"pass --id {form} (in Python masks.renamed({form!r}, like=…) with the ids of the other side)"


def _pair(ours: list[str], theirs: list[str], change: Callable[[str], str]) -> tuple[str, str]:
    forms = {change(s): s for s in theirs}
    mine = next(s for s in ours if change(s) in forms)
    return mine, forms[change(mine)]
