"""The option of `ensk vote --hard` that fuses labels by how well members vote, and how their quality is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_kit.cli.common import Common

if TYPE_CHECKING:
    from ensemble_kit.decisions.simple import Simple
    from ensemble_kit.decisions.staple import Staple
    from ensemble_kit.masks.stream import Masks

FusionOption = Annotated[
    str | None,
    typer.Option(
        "--fusion",
        metavar="METHOD",
        help="With --hard: how votes are combined. majority (default); staple estimates the truth and each member's "
        "sensitivity and specificity in turn; simple weights members by their Dice with the consensus and drops bad "
        "ones. Both print the quality of the members. For each sample and class; staple:pooled or simple:pooled for "
        "each class over all samples. Further options: staple:region=disagreement, iterations=N, tolerance=X; "
        "simple:alpha=X, least=N, with commas between. Label maps: staple with --by label.",
    ),
]


def read_fusion(text: str | None, **beside: object) -> Staple | Simple | None:
    """Read `--fusion`, and refuse options beside it that it has no use for; None is the majority."""
    from ensemble_kit.decisions.label_fusion import method_of, refuse_beside

    method = method_of(text)
    if method is not None:
        refuse_beside(method, **beside)
    return method


def tell_quality(common: Common, masks: Masks, to_stdout: bool) -> tuple[dict[str, Any], list[Any]]:
    """Return the quality of members for the answer, by name and as a report; or say it where masks are on stdout."""
    quality = getattr(masks, "quality", None)  # a stream has none
    if quality is None:
        return {}, []
    report = quality.report()
    if to_stdout:
        common.say(str(report))
    return {"quality": quality.to_dict()}, [report]
