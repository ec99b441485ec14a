"""Options of a tuning that do not go together: refused before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

from ensemble_kit.decisions.rule import Rule
from ensemble_kit.errors import UsageError, check_choice
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.with_rules import Ruling

_ALONE = "under rules each class takes its own best threshold (--choose own)"


def check_together(
    by_argmax: bool,
    trials: bool,
    search: Search | None,
    rules: Sequence[Rule],
    choose: Choice | None,
    least: float | None,
) -> None:
    """Refuse options of which one would have no effect beside another.

    Parameters
    ----------
    by_argmax : whether factors of argmax are tuned.
    trials : whether thresholds are found by trials.
    search, rules, choose, least : as for `Tuning`.

    Raises
    ------
    UsageError
        It names both, and what to leave out.
    """
    what = "trials" if trials else "factors of argmax" if by_argmax else None
    if rules and what is not None:
        fix = "leave it out, or pass it to the vote (ensk vote --rule)"
        raise _idle("tune with rules", f"{rules[0]} with {what}", fix)
    if search is not None and search.is_auto and not trials:
        given = {"--least": least, "--choose (--shrink, --shared)": choose, "--rule": rules or None}
        for option in (name for name, value in given.items() if value is not None):
            raise _idle("search", f"{option} with --search auto, which chooses that itself", f"leave {option} out")
    if choose == "bagged" and by_argmax:
        fix = "pass --choose shrunk or own, or decide by threshold"
        raise _idle("choose factors so", "--choose bagged with factors of argmax", fix)
    if choose in {None, "own"} or (by_argmax and choose == "shrunk"):
        return
    if what is not None:
        raise _idle("choose thresholds so", f"--choose {choose} with {what}", "leave it out")
    ruling = Ruling(given=tuple(rules)) if search is None else search.ruling(rules)
    if ruling:
        raise _idle("choose thresholds so", f"--choose {choose} with rules", f"leave it out: {_ALONE}")
    if search is not None and choose == "shared":
        fix = "leave it out, or search first and pass the weights that were found (--weights)"
        raise _idle("share one threshold", "--choose shared with a search", fix)


def choice_of(choose: str | None, shrink: bool | None = None, shared: bool = False) -> Choice | None:
    """Read how thresholds are chosen, in today's words or in those before them; None: as is usual.

    Parameters
    ----------
    shrink : True means "shrunk", False "own".
    shared : means "shared", whatever `shrink` says.

    Raises
    ------
    UsageError
        Another word, or two that differ.
    """
    if choose is not None:
        check_choice("choose", choose, get_args(Choice), "cannot tune")
    older = "shared" if shared else None if shrink is None else "shrunk" if shrink else "own"
    if choose is not None and older not in {None, choose}:
        item = f"--choose {choose} with an option that means {older}"
        fix = "pass --choose alone; --shared, --shrink and --no-shrink are older words for shared, shrunk and own"
        raise UsageError("option-idle", "cannot choose thresholds in two ways", item=item, fix=fix)
    return cast("Choice | None", choose or older)


def _idle(what: str, item: str, fix: str) -> UsageError:
    return UsageError("option-idle", f"cannot {what}", item=item, fix=fix)
