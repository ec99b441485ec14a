"""nnU-Net 2: what one fold's network puts out, on the grid that it was preprocessed to.

nnU-Net transposes an image, crops it to what is not zero, and resamples the crop to the spacing of its plans. Logits
are left there: they are interpolated where a voxel is decided, by the same rule (`resampling_fn_probabilities`):
linear, or nearest along an axis whose spacing is more than 3 times the smallest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import UnsafeError, UsageError
from ensemble_kit.spec.geometry import AxisKind, Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECKPOINT = "checkpoint_final.pth"
LINEAR = {"order": 1, "order_z": 0, "mode": "linear", "aniso_axis_mode": "nearest-exact"}
"""Options of nnU-Net's resampling that Placement can say."""


class FoldNetwork:
    """The network of one fold.

    Parameters
    ----------
    folder : of the model, `TRAINER__PLANS__CONFIGURATION`, with plans.json, dataset.json and the folds.
    fold : its number, or "all".
    checkpoint : file in the fold's folder.
    device : "cpu", "cuda" or "mps".
    mirror : whether outputs are averaged over flips, as nnU-Net does by default.
    trust : allow to load the checkpoint, which is a pickle.

    Raises
    ------
    UnsafeError
        Without `trust`.
    UsageError
        nnunetv2 is not installed, or this model cannot be dumped.
    """

    def __init__(
        self,
        folder: Path,
        fold: str,
        checkpoint: str = CHECKPOINT,
        *,
        device: str = "cpu",
        mirror: bool = True,
        trust: bool = False,
    ) -> None:
        if not trust:
            item = f"{str(folder / f'fold_{fold}' / checkpoint)!r} is a pickle, which can run any code"
            fix = "pass --trust if you know where it comes from"
            raise UnsafeError("model-can-run-code", "refused to open a model", item=item, fix=fix)
        try:
            with redirect_stdout(sys.stderr):
                import torch
                from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        except ImportError as error:
            item, fix = f"nnunetv2 cannot be imported: {error}", "pip install nnunetv2"
            raise UsageError("nnunet-missing", "cannot run networks of nnU-Net", item=item, fix=fix) from error
        with redirect_stdout(sys.stderr):  # nnU-Net prints, and stdout is the answer's
            net = nnUNetPredictor(device=torch.device(device), use_mirroring=mirror, allow_tqdm=False)
            net.initialize_from_trained_model_folder(str(folder), (fold,), checkpoint)
        self._net, self._torch = net, torch
        plan = net.configuration_manager
        how = {"order": 1, "order_z": 0} | plan.configuration["resampling_fn_probabilities_kwargs"]
        known = all(how[key] == value for key, value in LINEAR.items() if key in how)
        if plan.previous_stage_name is not None or not known:
            item = f"{folder.name!r} resamples its outputs by {how}"
            if plan.previous_stage_name is not None:
                item = f"{folder.name!r} needs the segmentations of {plan.previous_stage_name}"
            fix = "predict with nnUNetv2_predict … --save_probabilities, and dump the folder of its answers"
            raise UsageError("nnunet-model", "cannot dump this model of nnU-Net", item=item, fix=fix)

    def logits(self, files: Sequence[Path]) -> tuple[NDArray[np.float16], Placement]:
        """Run on a case, given by a file a channel; return float16 (C, d, h, w) on the file's axes z, y, x."""
        net = self._net
        plans, plan = net.plans_manager, net.configuration_manager
        with redirect_stdout(sys.stderr):
            preprocessor = plan.preprocessor_class(verbose=False)
            data, _, about = preprocessor.run_case([str(f) for f in files], None, plans, plan, net.dataset_json)
            out = net.predict_logits_from_preprocessed_data(self._torch.from_numpy(data))
        back = [int(k) for k in plans.transpose_backward]
        array = out.cpu().numpy().transpose(0, *(k + 1 for k in back))
        crop, kinds = about["bbox_used_for_cropping"], self._kinds(about["spacing"])
        window = [int(crop[k][side]) for side in (0, 1) for k in back]
        image = [int(about["shape_before_cropping"][k]) for k in back]
        return array, Placement.of(array.shape[1:], image, window=window, axes=[kinds[k] for k in back])

    def _kinds(self, spacing: Sequence[float]) -> list[AxisKind]:
        """Tell by nnU-Net's rule how it resamples each of its own axes."""
        from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

        plan = self._net.configuration_manager
        image = [spacing[k] for k in self._net.plans_manager.transpose_forward]
        grid = [*image[: 3 - len(plan.spacing)], *plan.spacing]  # 2d networks keep the distance of slices
        force = plan.configuration["resampling_fn_probabilities_kwargs"].get("force_separate_z")
        separate, axis = determine_do_sep_z_and_axis(force, grid, image)
        return ["nearest" if separate and k == axis else "linear" for k in range(3)]

    def grid(self, image: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
        """Return the grid that an image (D, H, W) would be resampled to if nothing were cropped."""
        from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

        plans, plan = self._net.plans_manager, self._net.configuration_manager
        shape, was = ([values[k] for k in plans.transpose_forward] for values in (image, spacing))
        out = compute_new_shape(shape, was, [*was[: 3 - len(plan.spacing)], *plan.spacing]).tolist()
        return tuple(out[k] for k in plans.transpose_backward)

    def record(self) -> dict[str, Any]:
        """Return versions, for the store's provenance."""
        from importlib.metadata import version

        return {"versions": {"nnunetv2": version("nnunetv2"), "torch": self._torch.__version__}}
