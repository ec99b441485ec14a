"""Rules of post-processing: frozen values that change a sample's masks, each with a text form.

    NAME[:ARGUMENT[,ARGUMENT…]][@CLASS[,CLASS…]]

    drop-small:200              drop components of fewer than 200 pixels
    drop-small:0.05%            … of fewer than 0.05 % of the image's pixels
    drop-small:100mm3           … of fewer voxels than have 100 mm³, by the volume's affine; so least-area, fill-holes
    keep-largest                keep the largest component; keep-largest:2 the two largest
    keep-largest:together       … of all classes but the background as one mask; keep-largest:2,together
    fill-holes                  fill every hole; fill-holes:50 those of at most 50 pixels
    fill-holes:slices           … of every slice of a volume by itself; fill-holes:50,slices
    gate:0.75,2000              empty the mask unless at least 2000 pixels lie at or above 0.75
    least-area:120              empty the mask if it has fewer than 120 pixels; least-area:0.05% of the image
    compete:0.8                 take a pixel from a class whose score is below 0.8 x the highest of all classes
    compete:0.8@A,B,C           … of these three, from these three
    nested@WT,TC,ET             cut each mask to the one of the class before it
    nested:grow@WT,TC,ET        … or add to each mask the one of the class behind it

`connectivity=4` may stand as the last argument (`drop-small:200,connectivity=4`); the default is 8. In volumes it is 6,
18 or 26, the default, and pixels are voxels. Without `@` a rule holds for every class. Everything behind the first `@`
is the list of classes, as in a line of CSV: a name that holds a comma stands in double quotes, and a double quote
inside them is written twice.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from ensemble_kit.decisions.across import Compete, Nested
from ensemble_kit.decisions.areas import LeastArea
from ensemble_kit.decisions.connected import DropSmall, FillHoles, KeepLargest
from ensemble_kit.decisions.rule import Decided, Rule, ScoreRule, invalid
from ensemble_kit.decisions.ruletext import RuleText, decimal, plain, whole
from ensemble_kit.errors import UsageError, check_several
from ensemble_kit.masks.runs import Runs


@dataclass(frozen=True)
class Gate(ScoreRule):
    """Empty the mask unless enough pixels of its class lie at or above a top threshold.

    The first two of the triplet (top threshold, smallest area, bottom threshold) of the winners of the SIIM-ACR
    Pneumothorax challenge (Anuar Aimoldin, 2019); the third is the threshold that made the mask.

    Parameters
    ----------
    top : threshold in [0, 1], on the scale of `Ensemble.vote`.
    min_area : pixels at or above it that the mask needs to stay, at least 1.

    Examples
    --------
    >>> Gate(0.75, 3).decide(Runs([0], [4], (2, 4)), above=2).area
    0
    """

    kind = "gate"
    form = "gate:0.75,2000 (top threshold, pixels)"
    monotone = True
    top: float
    min_area: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_number("top")
        self._set_whole("min_area")

    def changed(self, decided: Decided) -> Iterator[Mapping[int, Runs]]:
        """Yield each mask, empty where too few pixels of its class lie at or above the top threshold."""
        scores = self.scores_of(decided)
        level = scores.inputs.fusion.mean.level_of(self.top)
        for k, name in enumerate(decided.names):
            if self.covers(name):
                mask, c = decided.masks[k], scores.inputs.classes.index(name)
                yield {k: self.decide(mask, scores.runs(c, level).area) if mask else mask}

    def decide(self, runs: Runs, above: int) -> Runs:
        """Return the mask, or an empty one where fewer than `min_area` pixels lie at or above the top threshold."""
        return runs if above >= self.min_area else Runs.empty(runs.shape)

    def masks_alone(self) -> UsageError:
        """Make the error of a gate where there are only masks."""
        return UsageError(
            "gate-needs-scores",
            "cannot apply a gate to masks alone",
            item=f"rule {str(self)!r} counts pixels above a threshold, and a mask has no scores",
            fix="pass it to a soft vote over stores: Ensemble.vote(rules=…), ensk vote --soft",
        )

    def _arguments(self) -> tuple[str, ...]:
        return plain(Decimal(str(self.top))), str(self.min_area)

    @staticmethod
    def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
        top, area = arguments
        return {"top": float(decimal(top)), "min_area": whole(area)}


_KINDS: dict[str, type[Rule]] = {
    k.kind: k for k in (DropSmall, KeepLargest, FillHoles, Gate, LeastArea, Compete, Nested)
}


def parse_rule(text: str) -> Rule:
    """Read a rule as `str` writes it; the forms are listed at the head of this module.

    Raises
    ------
    UsageError
        A text of another form, or a number that cannot mean anything.

    Examples
    --------
    >>> parse_rule("keep-largest:2@Radius,Ulna")
    KeepLargest(classes=('Radius', 'Ulna'), k=2, connectivity=None, together=False)
    """
    try:
        taken = RuleText.of(text)
    except csv.Error as error:
        raise invalid(
            f"rule {text!r}: its classes are not a line of CSV ({error})", "close the double quotes"
        ) from None
    kind = _KINDS.get(taken.name)
    if kind is None:
        raise invalid(
            f"{text!r} begins with an unknown rule", f"write one of {', '.join(k.form for k in _KINDS.values())}"
        )
    try:
        values = kind._read(taken.arguments)
        if taken.connectivity is not None:
            values["connectivity"] = whole(taken.connectivity)
        if not values.keys() <= {f.name for f in fields(kind)}:
            raise ValueError(text)  # a gate has no connectivity
    except ValueError:
        fix = f"write {kind.form}" + ("" if kind.across else "; after it @ and class names if it is for some")
        raise invalid(f"rule {text!r}", fix) from None
    return kind(**values, classes=taken.classes)


def parse_rules(rules: Iterable[Rule | str] | Rule | str) -> tuple[Rule, ...]:
    """Read several rules, each a value or its text; a single one is a list of one.

    Raises
    ------
    UsageError
        As for `parse_rule`; an item of another type.
    """
    if isinstance(rules, (Rule, str)):
        rules = [rules]
    check_several("rules", rules, "pass a list of rules or their texts, such as ['drop-small:200']")
    given = list(rules)
    for rule in given:
        if not isinstance(rule, (Rule, str)):
            raise invalid(f"{rule!r} is not a rule", "pass rules or their texts, such as 'drop-small:200'")
    return tuple(parse_rule(r) if isinstance(r, str) else r for r in given)
