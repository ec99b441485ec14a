"""Which samples members share, and whether their volumes and scenes lie where the others do."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble_kit.errors import IncompleteError, MismatchError, differ, some
from ensemble_kit.logits.folds import StoreMember, stores_of
from ensemble_kit.masks.alignment import Extent, check_aligned
from ensemble_kit.masks.idforms import difference
from ensemble_kit.spec.georeference import WorldGeometry


def join_samples(members: Sequence[StoreMember], how: str) -> tuple[tuple[str, ...], int]:
    """Return the samples of all members in the order of the first, and how many others there are.

    Parameters
    ----------
    how : "same" refuses members of different samples, "common" takes those that all of them have.

    Raises
    ------
    MismatchError
        With "same", a member that lacks samples of another.
    IncompleteError
        No sample is in all of them.
    """
    first = members[0].samples
    if all(m.samples == first and (how == "same" or m.complete) for m in members):
        return first, 0  # as nearly always: sets of a million names would take 0.1 GB a member
    held = [set(m.samples) - (set(m.missing) if how == "common" else set()) for m in members]
    common = set.intersection(*held)
    union = {s for m in members for s in m.samples}
    if how == "same":
        for member, own in zip(members, held, strict=True):
            if own != union:
                lacking = [s for m in members for s in m.samples if s not in own]
                why, mend = _differences(members)
                raise MismatchError(
                    "samples-differ",
                    "cannot fuse members that hold different samples",
                    item=f"{member.member!r} lacks {len(set(lacking))} of {len(union)}: "
                    f"{some(dict.fromkeys(lacking))}{why}",
                    fix=mend or _folds_or_common(members),
                )
    if not common:
        why, fix = _differences(members)
        raise IncompleteError(
            "samples-none",
            "cannot fuse members",
            item=f"they have no sample in common{why}",
            fix=fix or "dump the same images for every member",
        )
    return tuple(s for s in first if s in common), len(union) - len(common)


def _folds_or_common(members: Sequence[StoreMember]) -> str:
    """Say what to do about members of different samples: some may be the folds of one."""
    sets = [set(m.samples) for m in members]
    if len({m.member for m in members}) == 1 or sum(map(len, sets)) == len(set.union(*sets)):
        paths = [str(store.path) for m in members for store in stores_of(m)][:3]
        named = " ".join(f"{members[0].member}={path}" for path in paths)
        more = " …" if len(members) > 3 else ""
        return (
            f"if they are folds of one network, each with samples of its own, give them one name: {named}{more}; in "
            "Python Ensemble({name: [paths]}); if not, dump the same images for every member"
        )
    return "dump the same images for every member, or pass samples='common' (--samples common)"


def check_geometries(members: Sequence[StoreMember], samples: Sequence[str]) -> None:
    """Refuse members of volumes that differ in size or geometry; samples that a member lacks are not looked at.

    Raises
    ------
    MismatchError
        It names the sample, and both geometries.
    """
    first, *others = members
    known: dict[str, WorldGeometry] = {}
    for other in others:
        kind = "volumes" if first.rank == 3 else "scenes"
        names, what = (repr(first.member), repr(other.member)), f"cannot fuse members of {kind} that differ"
        if first.rank != other.rank:
            both = [f"{_KINDS[m.rank]} in {m.member!r}" for m in (first, other)]
            fix = "pass members of volumes only, or of images only; a volume of one slice is (C, 1, h, w)"
            raise differ("cannot fuse images with volumes", "what they hold", both[0], both[1], fix, "ranks-differ")
        if all(len(m.grid or ()) == 2 for m in (first, other)):  # images of one grid have no geometry
            continue
        lacking = {*first.missing, *other.missing}
        held = [sample for sample in samples if sample not in lacking]
        ours, theirs = _extent(first, held), _extent(other, held)
        known = {**ours.geometry, **known}
        if first.rank == 2:
            theirs = theirs._replace(sizes=ours.sizes)  # images of two sizes are refused where they are opened
        check_aligned(ours._replace(geometry=known), theirs, names, what, fix=_ONE_READER)
        known = {**theirs.geometry, **known}


def without_geometry(members: Sequence[StoreMember], samples: Sequence[str]) -> list[str]:
    """Name the members that do not say where some of these samples lie, where others say it."""
    known: dict[str, list[bool]] = {}
    for sample in samples if len(members) > 1 and any(len(m.grid or ()) != 2 for m in members) else ():
        said = [m.geometry(sample) is not None for m in members]
        for member, own in zip(members, said, strict=True):
            known.setdefault(member.member, []).append(own or not any(said))
    return [name for name, own in known.items() if not all(own)]


_KINDS = {2: "images (y, x)", 3: "volumes (z, y, x)"}
_ONE_READER = (
    "dump both members from the same image files, read the same way (nnU-Net: one image_reader_writer); or vote over "
    "their masks, once ensk convert --like-image brought them to one geometry: ensk vote --hard"
)


def _extent(store: StoreMember, samples: Sequence[str]) -> Extent:
    geometries = {sample: own for sample in samples if (own := store.geometry(sample)) is not None}
    return Extent((), {sample: store.image_size(sample) for sample in samples}, geometries)


def _differences(members: Sequence[StoreMember]) -> tuple[str, str]:
    """Say how the ids of two members differ that mean the same images, and what to do; blank where they do not."""
    for other in members[1:]:
        if found := difference(members[0].samples, other.samples):
            fix = "dump every member of the same files with the same --id (ensk dump-logits --id name|stem|path)"
            return f"; {found[0]}", fix
    return "", ""
