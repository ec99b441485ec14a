"""Hard votes over stores that saw windows of their images: members do not vote on what they did not see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.recipes.hard_vote import HardVote
from ensemble_kit.recipes.members import members_of

WHOLE = {2: (8, 9), 3: (4, 8, 9)}
WINDOWS: dict[int, tuple[tuple[int, ...] | None, ...]] = {
    2: (None, (0, 0, 5, 9), (2, 3, 8, 9)),
    3: (None, (0, 0, 0, 2, 8, 9), (1, 2, 3, 4, 8, 9)),
}


def stores(folder: Path, rank: int, activation: Any, windows: Any) -> tuple[list[Path], list[np.ndarray]]:
    """Three stores at the size of what they saw, and where each did."""
    image, classes, paths, seen = WHOLE[rank], ["background", "a", "b"], [], []
    for k, window in enumerate(windows):
        edges = window or (*(0,) * rank, *image)
        inside = tuple(slice(a, b) for a, b in zip(edges[:rank], edges[rank:], strict=True))
        seen.append(np.zeros(image, bool))
        seen[k][inside] = True
        paths.append(folder / f"m{k}.zarr")
        with ek.LogitWriter(paths[k], classes, ["s", "t"], activation=activation, member=f"m{k}") as out:
            for j, sample in enumerate(("s", "t")):
                logits = np.random.default_rng(2 * k + j).normal(0, 3, (3, *seen[k][inside].shape))
                out.write(sample, logits, image, window=window)
    return paths, seen


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(("activation", "by"), [("sigmoid", "class"), ("softmax", "class"), ("softmax", "label")])
@pytest.mark.parametrize("whole", [True, False], ids=["one-saw-all", "nobody-saw-all"])
def test_a_member_votes_on_what_it_saw(tmp_path: Path, rank: int, activation: Any, by: str, whole: bool) -> None:
    windows = WINDOWS[rank] if whole else (*WINDOWS[rank][1:], WINDOWS[rank][1])
    paths, seen = stores(tmp_path, rank, activation, windows)
    vote = HardVote(tuple(members_of(paths)), (None,), {"by": by, "ties": "first" if by == "label" else "off"}, {})
    assert any("does not vote outside" in line for line in vote.told())
    masks, own = vote.run().whole(), [ek.Ensemble(p).vote() for p in paths]
    assert not masks.has_void
    python = ek.hard_vote(own, by=by, ties="first" if by == "label" else "off")  # type: ignore[arg-type]
    assert python == masks and not python.has_void
    assert set(python.extent.windows) == (set() if whole else {"s", "t"})
    say = np.array(seen) | ~np.any(seen, axis=0)  # where nobody saw anything, all vote as they decide there
    for sample in ("s", "t"):
        on = np.array([[m[sample, name].decode() for name in m.classes] for m in own]) & say[:, None]
        votes = on.sum(axis=0)
        wanted = (
            votes * 2 > say.sum(axis=0)
            if by == "class"
            else votes.argmax(axis=0) == np.arange(3).reshape(3, *(1,) * rank)
        )
        for c, name in enumerate(masks.classes):
            assert np.array_equal(masks[sample, name].decode(), wanted[c]), (sample, name)


def half(on: tuple[int, int], window: tuple[int, ...] | None, size: tuple[int, int] = (4, 6)) -> ek.MaskSet:
    masks = ek.MaskSet({("s", "x"): ek.Runs([on[0]], [on[1]], size)})
    return masks if window is None else masks.with_windows({"s": [window]})


LEFT, RIGHT = (0, 0, 4, 3), (0, 3, 4, 6)


def test_masks_that_say_what_was_seen_abstain_elsewhere() -> None:
    whole, left = half((0, 24), None), half((0, 2), LEFT)
    assert ek.hard_vote([whole, left])["s", "x"].area == 2 + 12  # of the right half, the whole image's member alone
    assert ek.hard_vote([whole, left.within(whole.extent)])["s", "x"].area == 2  # which does not say it
    assert ek.hard_vote([left, half((0, 24), RIGHT)]).extent.windows == {"s": (LEFT, RIGHT)}
    for way in (
        left.arranged(["s"], ["x"]),
        left.without_void(),
        left.called({"s": "t"}).called({"t": "s"}),
        left.with_geometry({}),
        left.with_void({"s": ek.Runs([5], [6], (4, 6))}),
    ):
        assert way.extent.windows == {"s": (LEFT,)}, way


def test_a_member_that_weighs_nothing_sees_nothing() -> None:
    left, whole = half((0, 24), LEFT), half((0, 24), None)
    assert ek.hard_vote([left, whole], weights=[1, 0]) == ek.hard_vote([left])
    assert ek.hard_vote([left, whole], weights=[1, 0]).extent.windows == {"s": (LEFT,)}


def test_a_window_outside_of_the_image_is_refused() -> None:
    with pytest.raises(ek.UsageError, match="window"):
        half((0, 2), (0, 0, 5, 6))


@pytest.mark.parametrize("fusion", ["staple", "simple"])
def test_fusions_leave_out_what_was_not_seen(fusion: Any) -> None:
    members = [half((0, 24), None), half((0, 22), None), half((0, 2), LEFT)]
    assert ek.hard_vote(members, fusion=fusion)["s", "x"].decode()[:, 3:].sum() >= 10


def test_files_beside_windows_count_everywhere_and_it_is_said(tmp_path: Path) -> None:
    paths, _ = stores(tmp_path, 2, "sigmoid", WINDOWS[2])
    ek.Ensemble(paths[0]).vote().write(tmp_path / "m.npz")
    told = HardVote(tuple(members_of([tmp_path / "m.npz", *paths[1:]])), (None,), {}, {}).told()
    assert any("masks of files do not say what was seen" in line for line in told)
    assert not any("files" in line for line in HardVote(tuple(members_of(paths)), (None,), {}, {}).told())
