"""The benchmark behind docs/answers.md runs on a tiny set: members trained, rows measured once, tables written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ensemble_kit as ek

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "examples" / "answers"


def test_the_ladder_of_a_tiny_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import ladder
    import members
    import page
    import rows
    import sets

    def cases(part: str, count: int) -> list[sets.Case]:
        rng, out = np.random.default_rng(len(part)), []
        for k in range(count):
            left = rng.random((32, 32)) < np.linspace(0.9, 0.1, 32)
            image = np.repeat((200 * left[..., None] + 20).astype(np.uint8), 3, 2)
            out.append(sets.Case(f"{part}{k}.png", f"{part}{k // 2}", image, np.stack([left, ~left])))
        return out

    parts = {"fit": cases("fit", 4), "val": cases("val", 8), "test": cases("test", 4)}
    steps = dict.fromkeys(members.FAMILIES, 2)
    tiny = sets.Set("tiny", ("left", "right"), False, 32, steps, lambda _: parts, "two halves", batch=4)
    folder = tmp_path / "tiny"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other
    members.make(tiny, tmp_path, folder, say=lambda _: None)
    torch.set_num_threads(threads)
    wanted = [row for row in rows.ROWS if row.key in {"soft", "default", "rank"}]
    found = ladder.climb(folder, say=lambda _: None, rows=wanted)
    assert list(found) == ["soft", "default", "rank"]

    # the rows are what the public calls give
    val, test = (ek.Ensemble(sorted((folder / part).glob("*.zarr"))) for part in ("val", "test"))
    truth = {part: ek.read_masks(folder / f"{part}.npz") for part in ("val", "test")}
    groups = {row.name: row.group for part in ("val", "test") for row in parts[part]}
    tuned = ek.tune_thresholds(val, truth["val"], folds="auto", groups=groups)
    assert found["soft"]["test"] == ek.dice(test.vote(), truth["test"]).mean
    assert found["soft"]["gain"] == [0, 0, 0]
    assert found["default"]["test"] == ek.dice(test.vote(tuned), truth["test"]).mean
    crossed = tuned.validation.crossed
    assert crossed is not None and found["default"]["fold"] == crossed.scores["tuned"]
    assert found["rank"]["fold"] == ek.dice(val.vote(ek.RankRule()), truth["val"]).mean
    assert found["default"]["gain"][0] == pytest.approx(found["default"]["test"] - found["soft"]["test"])

    # a second run measures only what is asked for anew
    (folder / "rows" / "rank.json").write_text(json.dumps({**found["rank"], "seconds": 1e6}))
    (folder / "rows" / "soft.json").write_text(json.dumps({**found["soft"], "seconds": 1e6}))
    again = ladder.climb(folder, say=lambda _: None, rows=wanted, again=["soft"])
    assert again["rank"]["seconds"] == 1e6 and again["soft"]["seconds"] < 1e6

    text = page.section(tiny, folder, again)
    assert "### tiny\n\nTwo halves; 8 images to tune on, 4 to judge; mean Dice × 100." in text
    assert f"| soft mean, 0.5 or argmax | {page.number(found['soft']['fold'])} " in text.replace("**", "")
    place = tmp_path / "answers.md"
    place.write_text("before\n<!-- measured -->\nwhat stood there\n<!-- /measured -->\nafter\n")
    page.write(place, {"tiny": text}, {"tiny": {"review": {"images": 4, "spearman": 0.5}}})
    written = place.read_text()
    assert written.startswith("before\n<!-- measured -->\n") and written.endswith("<!-- /measured -->\nafter\n")
    assert "what stood there" not in written and "| tiny | – | – | – | 0.50 |" in written
