"""MONAI: a transform that stores what a network put out, after it was brought back to its image's file.

It stands last among the post transforms, behind `Invertd(keys="pred", …, nearest_interp=False)`: Invertd's default
takes the nearest cell, which makes steps of logits.

Where the network saw a crop (CropForegroundd, SpatialCropd), Invertd pads what it put out with zeros, which as logits
are the probability 0.5. Such a margin, in which all classes are exactly 0, is left out: the crop is written as a
window of its image (docs/concepts.md#rule-5-placement).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError, check_choice
from ensemble_kit.logits.margins import Extent
from ensemble_kit.logits.open import PathLike
from ensemble_kit.logits.plausible import Domain
from ensemble_kit.masks.idforms import IdForm, in_form
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import Box
from ensemble_kit.trainers.batches import BatchWriter, Terms, this_process, to_stderr
from ensemble_kit.trainers.fields import listed

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SaveLogitsd:
    """Write each sample's logits into a store; the dictionary is passed on as it came. A context manager.

    Parameters
    ----------
    keys : key of the network's output, a MetaTensor (C, X, Y, Z) or (C, X, Y); stored on the axes z, y, x.
    out, classes, samples, activation, domain, member, checked : as of `LogitWriter`; each sample has its own grid.
        The store is declared at once, and a sample that is there already is skipped and counted.
    id : key of the image, whose file gives the sample's id; or of the id itself, a text.
    ids : what a sample is called: its file's "name" or "stem". None: the name of an image, the stem of a volume, as
        masks are called.
    say : receives what was written, at the end.

    Examples
    --------
    >>> with SaveLogitsd("pred", "unet.zarr", classes=CLASSES, samples=ids) as save:  # doctest: +SKIP
    ...     invert = Invertd("pred", transform=pre, orig_keys="image", nearest_interp=False)
    ...     post = Compose([invert, save])
    """

    def __init__(
        self,
        keys: Hashable,
        out: PathLike,
        classes: Sequence[str],
        samples: Sequence[str],
        id: Hashable = "image",  # noqa: A002 - as the field is called
        ids: IdForm | None = None,
        activation: Activation | None = None,
        domain: Domain = "logits",
        member: str | None = None,
        *,
        checked: bool = False,
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        if ids is not None:
            check_choice("ids", ids, ("name", "stem"))
        if isinstance(keys, (tuple, list)):
            if len(keys) != 1:
                fix = "pass one key, and a transform with a store of its own for each output"
                raise UsageError("monai-keys", "cannot write several outputs to one store", item=repr(keys), fix=fix)
            keys = keys[0]
        self.key, self.id, self.ids, self.say = keys, id, ids, say
        terms = Terms("the network", "the dataset")
        self.writer = BatchWriter(
            out,
            classes,
            samples,
            activation=activation,
            domain=domain,
            member=member,
            checked=checked,
            terms=terms,
            process=this_process(),
        )

    def close(self) -> None:
        """Sync and release, and say what was written."""
        self.writer.close()
        self.say(self.writer.told())

    def __enter__(self) -> SaveLogitsd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Write one sample.

        Without a file's size, in the output's meta data or in those of the image, the output's own is the image's.

        Raises
        ------
        MismatchError
            The output is not on the axes of its image's file.
        UsageError
            It is a class map or a loss; the dictionary lacks it, or what tells its id.
        """
        for key, name in ((self.key, "keys"), (self.id, "id")):
            if key not in data:
                item, fix = f"the dictionary has no {key!r}: {listed(data)}", f"pass {name}= with a key that it has"
                raise UsageError("batch-fields", "cannot read what a network put out", item=item, fix=fix)
        found = data[self.key]
        if not getattr(found, "shape", ()):
            self.writer.check(found)  # refuses it as a loss
        sample, meta = self._sample(data), getattr(found, "meta", {})
        array = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
        known = (meta, getattr(data[self.id], "meta", {}))
        size = next((m["spatial_shape"] for m in known if "spatial_shape" in m), array.shape[1:])
        shape = tuple(int(n) for n in np.asarray(size))
        flat = array.ndim == 3
        if array.ndim not in {3, 4} or array.shape[1:] != shape[: array.ndim - 1] or not _is_inverted(meta):
            item = f"sample {sample!r}: {self.key!r} is {array.shape}, its file {shape} (x, y, z)"
            fix = 'put Invertd(keys="pred", transform=…, orig_keys="image", nearest_interp=False) before it, '
            fix += "and pass one sample at a time (decollate_batch)"
            raise MismatchError(
                "monai-not-inverted", "cannot store an output on other axes than its image's", item=item, fix=fix
            )
        values = array.transpose(0, *range(array.ndim - 1, 0, -1))
        affine = None if flat else meta.get("affine")
        whole = Box.whole(values.shape[1:])
        is_logits = self.writer.out.domain == "logits"
        seen = _seen(values) if is_logits else whole  # as probabilities zeros are what they seem
        self.writer.put_placed(
            sample,
            np.ascontiguousarray(values[:, *seen.slices]),
            values.shape[1:],
            window=None if seen == whole else seen,
            geometry=None if affine is None else Geometry.of(np.asarray(affine), "RAS"),
        )
        return data

    def _sample(self, data: Mapping[Hashable, Any]) -> str:
        found = data[self.id]
        if isinstance(found, str):
            return found
        file = getattr(found, "meta", {}).get("filename_or_obj")
        if not isinstance(file, (str, PurePath)):
            item, fix = f"{self.id!r} has no file in its meta data", "pass id= with the key of a text"
            raise UsageError("monai-id", "cannot tell a sample's id", item=item, fix=fix)
        return in_form(str(file), self.ids or ("name" if data[self.key].ndim == 3 else "stem"))


def _seen(values: NDArray[Any]) -> Box:
    """Find the box of cells beyond which all classes are 0, as the writer finds it; all cells where none differs."""
    extent = Extent(whole := Box.whole(values.shape[1:]))
    extent.add(values.astype(np.float16), whole.start)
    return whole if extent.is_blank else extent.found


def _is_inverted(meta: Mapping[str, Any]) -> bool:
    """Tell whether an output has the affine of its image's file, where both are known."""
    if "affine" not in meta or "original_affine" not in meta:
        return True
    affine, original = (np.asarray(meta[key], np.float64) for key in ("affine", "original_affine"))
    return affine.shape == original.shape and bool(np.allclose(affine, original, atol=1e-3))
