"""The surface of the package: names, imports, the wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import pytest

import ensemble_kit as ek
from ensemble_kit import errors

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "numba", "pandas", "optuna", "cv2", "matplotlib", "zarr", "scipy", "PIL", "rich"}


def test_public_names() -> None:
    assert sorted(ek.__all__) == [
        "Argmax", "DamagedError", "Ensemble", "EnskError", "Geometry", "IncompleteError", "LockedError", "LogitStore", "LogitWriter",
        "MaskSet", "MismatchError", "RankRule", "ResourceError", "Runs", "Simple", "Stack", "Staple", "ThresholdSet",
        "Thresholds", "UnsafeError", "UsageError", "confusion", "control_risk", "dice", "encode", "fit_stack", "fuse",
        "hard_vote", "iou", "measure_calibration", "overlay", "read_masks", "tune_thresholds", "vote",
    ]  # fmt: skip
    for name in ek.__all__:
        assert getattr(ek, name).__doc__, name
    assert set(ek.__all__) <= set(dir(ek))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ek.nothing  # noqa: B018


@pytest.mark.slow
def test_strict_type_checkers_see_the_public_names(tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text(f"from ensemble_kit import {', '.join(ek.__all__)}\n")
    words = ["--strict", "--follow-imports=silent", "--no-site-packages", "--cache-dir", tmp_path, user]
    command = [sys.executable, "-m", "mypy", *words]
    env = os.environ | {"MYPYPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "statement", ["import ensemble_kit", "import ensemble_kit.cli.app", "from ensemble_kit import *"]
)
def test_imports_are_light(statement: str) -> None:
    brought = imported(statement) - (imported("import typer") & {"rich"})  # typer 0.16 imports rich itself
    assert brought & (HEAVY if "*" not in statement else {"torch", "numba", "pandas", "optuna", "cv2"}) == set()


def imported(statement: str) -> set[str]:
    """What a statement imports, by top-level names."""
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    return set(
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    )


def test_errors_are_also_builtins() -> None:
    kinds = {
        errors.UsageError: (2, ValueError), errors.DamagedError: (3, ValueError), errors.IncompleteError: (4, LookupError),
        errors.ResourceError: (5, OSError), errors.MismatchError: (6, ValueError), errors.UnsafeError: (7, PermissionError),
        errors.LockedError: (8, BlockingIOError),
    }  # fmt: skip
    for kind, (code, builtin) in kinds.items():
        error = kind("some-code", "cannot do it", item="this one", fix="do that")
        assert issubclass(kind, builtin)
        assert issubclass(kind, ek.EnskError)
        assert (error.exit_code, str(error)) == (code, "cannot do it: this one · fix: do that")


def test_the_wheel_holds_one_package_and_the_demo(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"ensemble_kit"}
    data = {"py.typed", "cli/codes.json", "demo/data/weights/unet.pt"}
    assert {f"ensemble_kit/{name}" for name in data} <= set(names)
    assert not [n for n in names if "__pycache__" in n or n.endswith((".nbi", ".nbc"))]


def test_demo_data_is_small_and_attributed() -> None:
    data = ROOT / "ensemble_kit" / "demo" / "data"
    assert sum(p.stat().st_size for p in data.rglob("*") if p.is_file()) <= 6_000_000
    assert "Timm Kandaouroff" in (data / "ATTRIBUTION.md").read_text()


def test_the_sets_that_ship_keep_the_schema() -> None:
    schema = json.loads((ROOT / "thresholds" / "schema.json").read_text())
    sets = [p for p in (ROOT / "thresholds").glob("*.json") if p.name != "schema.json"]
    assert "demo" in {p.stem for p in sets}
    for path in sets:
        jsonschema.validate(json.loads(path.read_text()), schema)
        assert ek.ThresholdSet.load(path).levels


def test_types_and_licence() -> None:
    assert (ROOT / "ensemble_kit" / "py.typed").exists()
    assert "MIT" in (ROOT / "LICENSE").read_text()
