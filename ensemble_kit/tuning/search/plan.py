"""`Search`: what a search may change and how it is run, and whether an ensemble allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ensemble_kit.decisions.rule import Rule
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError, UsageError, check_choice, check_number, check_several, some
from ensemble_kit.spec.mean import PROBABILITY
from ensemble_kit.tuning.search import studies
from ensemble_kit.tuning.search.samplers import SAMPLERS, Sampler
from ensemble_kit.tuning.with_rules import Ruling

WHAT = ("weights", "mean", "temperature", "post", "greedy", "compete", "least-area", "auto")
TRIALS = frozenset({"weights", "greedy", "mean", "temperature"})
"""What is found by trials that fuse members anew, from equal weights on."""
RULES = ("compete", "least-area")
"""What is chosen from counts, together with the thresholds, after the fusion."""


@dataclass(frozen=True)
class Search:
    """What a joint search may change, and how it is run.

    Parameters
    ----------
    what : some of "weights" (one per member), "mean" (power between geometric, 0, and arithmetic, 1), "temperature"
        (one per member), "post" (rules of post-processing by trials); or "greedy", Caruana's selection of members
        instead of "weights"; and, without trials and not with "post", "compete" (the ratio below which a class is off
        where another has a higher score) and "least-area" (of each class), each at its best with the thresholds.
        Or "auto" alone, which tries a menu of settings in a stated order, each judged out of fold.
    trials : of each study, including those of an earlier run.
    timeout : seconds for all studies of one run together; the best trial until then counts.
    storage, study : an Optuna storage URL, such as "sqlite:///study.db", and the study's name in it. The studies of
        folds stand beside it as NAME/fold-1 and so on, that of post-processing as NAME/post.
    sampler : "tpe", "cmaes" or "grid".
    seed : of the sampler; default: the tuning's.
    memory : bytes for undecided pixels; beyond it every second (third, …) pixel of every second row stands for the
        rest, which the record says. Default: 500 MB.

    Examples
    --------
    >>> Search.of("weights,mean").what
    ('weights', 'mean')
    """

    what: tuple[str, ...] = ("weights",)
    trials: int = 200
    timeout: float | None = None
    storage: str | None = field(default=None, repr=False)  # it may hold a password
    study: str = "ensk"
    sampler: Sampler = "tpe"
    seed: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        unknown = [w for w in self.what if w not in WHAT]
        fused = set(self.what) & {"weights", "mean", "temperature"}
        alone = len(self.what) > 1 and ("auto" in self.what or ("greedy" in self.what and bool(fused)))
        if not self.what or unknown or len(set(self.what)) != len(self.what) or alone:
            raise _refused(
                f"what={','.join(self.what)!r}",
                f"name some of {', '.join(WHAT)}; greedy goes without weights, mean and temperature, auto alone",
            )
        if self.is_auto and self.storage is not None:
            raise _refused("storage with auto, which keeps no study", "leave --storage out")
        if "post" in self.what and set(self.what) & set(RULES):
            raise _refused(
                f"what={','.join(self.what)!r}: both choose the levels of rules, in different ways",
                "search compete and least-area, or post",
            )
        check_number("trials", self.trials, "pass at least one trial", least=1, whole=True, what="cannot search")
        if self.timeout is not None:
            check_number("timeout", self.timeout, "pass seconds above 0", above=0, what="cannot search")
        check_choice("sampler", self.sampler, SAMPLERS, "cannot search")

    @property
    def is_auto(self) -> bool:
        """Tell whether it is the ladder of settings."""
        return self.what == ("auto",)

    @classmethod
    def of(cls, given: Search | str | Sequence[str]) -> Search:
        """Read a search, or the text of its `what`, such as "weights,mean" or "greedy"."""
        if isinstance(given, Search):
            return given
        names = given.split(",") if isinstance(given, str) else given
        check_several("search", names, "pass a Search, or what to search, such as 'weights,mean'")
        return cls(tuple(str(n).strip() for n in names))

    @property
    def by_counts(self) -> bool:
        """Tell whether all that is searched is chosen from counts, without a trial."""
        return set(self.what) <= set(RULES)

    def ruling(self, given: Sequence[Rule]) -> Ruling:
        """Return the rules that go with the thresholds: those searched, and those given.

        Raises
        ------
        UsageError
            Rules that do not go together, or with `post`.
        """
        if given and "post" in self.what:
            raise _refused(f"post with rule {str(given[0])!r}", "search post without rules, or pass rules without post")
        return Ruling("compete" in self.what, "least-area" in self.what, tuple(given))

    def count_studies(self, folds: int | None) -> int:
        """Count the studies of a run, which share the timeout."""
        each = bool(set(self.what) & {"weights", "mean", "temperature"}) + ("post" in self.what)
        return each * (1 + (folds or 0))

    def plan(self, seed: int, name: str, studies_in_all: int) -> studies.Plan:
        """Return how one study of this search is run."""
        timeout = None if self.timeout is None else self.timeout / studies_in_all
        own = seed if self.seed is None else self.seed
        return studies.Plan(self.trials, timeout, self.storage, self.study + name, self.sampler, own)


def check_by_argmax(search: Search) -> None:
    """Refuse a search of rules where pixels take the class of the largest score.

    Raises
    ------
    UsageError
        Rules, which may leave pixels without a class.
    """
    idle = [what for what in search.what if what in {"post", *RULES}]
    if idle:
        item, fix = f"{idle[0]} with decide='argmax': rules may leave pixels without a class", f"leave {idle[0]} out"
        raise UsageError("option-invalid", "cannot search", item=item, fix=fix)


def check(ensemble: Ensemble, search: Search) -> None:
    """Refuse what cannot be searched with this ensemble.

    Raises
    ------
    MismatchError
        Two members of one name.
    UsageError
        Weights of one member, temperatures of softmax members, or a power of a mean that is given already.
    """
    names = ensemble.fusion.members
    if len(set(names)) != len(names):
        raise MismatchError(
            "members-namesakes",
            "cannot tell members apart",
            item=f"of {some(names)} two have one name",
            fix="give each a name of its own: LogitWriter(member=…), ensk dump-logits --member",
        )
    trials, weights = TRIALS & set(search.what), ensemble.fusion.weights
    if trials and (lacking := ensemble.lacking):
        member, lost = next(iter(lacking.items()))
        raise MismatchError(
            "classes-differ",
            f"cannot search {', '.join(sorted(trials))}",
            item=f"a trial fuses all classes alike, and {member!r} lacks {some(lost)}",
            fix="search auto, compete or least-area, give --weights, or pass classes='common' "
            "(--member-classes common)",
        )
    if trials and any(max(row) - min(row) > 1 for row in weights):
        told = ensemble.fusion.weighed(weights[0]) if len(set(weights)) == 1 else "of each class"
        item = f"trials begin with equal weights, and weights are given: {told}"
        fix = "leave them out (--weights), or search post, compete, least-area or auto, which keep them"
        raise UsageError("option-idle", f"cannot search {', '.join(sorted(trials))}", item=item, fix=fix)
    fusing = {"weights", "greedy"} & set(search.what)
    if fusing and len(names) < 2:
        raise _refused(
            f"{', '.join(sorted(fusing))} of one member, {names[0]!r}",
            "pass two members or more, or search temperature or post only",
        )
    if ensemble.activation == "softmax" and "temperature" in search.what:
        item = "temperatures of softmax members, whose classes one temperature changes together"
        raise _refused(item, "leave temperature out, or give --temperatures", "softmax-option")
    if "mean" in search.what and ensemble.fusion.mean != PROBABILITY:
        raise _refused(
            f"the power of the mean, with mean={str(ensemble.fusion.mean)!r}",
            "leave mean out of the search, or --mean out of the options",
        )


def _refused(item: str, fix: str, code: str = "option-invalid") -> UsageError:
    return UsageError(code, "cannot search", item=item, fix=fix)
