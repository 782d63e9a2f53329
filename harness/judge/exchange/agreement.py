"""How far a judge agrees with people who compared the same answers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.judge.exchange.people import Choice, Compared, majority
from harness.records import Verdict
from harness.stats.agreement import (
    Measured,
    clustered_mean,
    clustered_share,
    cohen_kappa,
    krippendorff_alpha,
)


@dataclass(frozen=True)
class Agreement:
    """What a judge and people have in common; shares from 0 to 1, intervals over prompts.

    Pairs without a verdict or without a majority are in no figure but these two counts.

    Attributes:
        pairs: of the data set, or of one of its subsets.
        prompts: that differ among them.
        unreadable: pairs for which the judge gave no verdict that could be read.
        no_majority: pairs of which people said two things equally often.
        accuracy: the better answer found, of the pairs for which people named one; where the judge
            calls a tie it counts a half.
        one_order: the same for a judge that is asked in one order only, averaged over both.
        same: the same choice, ties included.
        kappa: Cohen's, of judge and majority, ties included.
        judge_ties: pairs for which the judge prefers neither answer.
        people_ties: pairs for which the majority prefers neither.
        consistency: asked pairs for which both orders prefer the same answer, or both neither.
        position_effect: how much more an answer is preferred where it is shown first.
        alpha: Krippendorff's, of the people alone; None where one person judged each pair.
        alpha_with_judge: the same with the judge as one more rater.
        person_person: how often two people who judged a pair said the same.
        judge_person: how often the judge said the same as one of them.
    """

    pairs: int
    prompts: int
    unreadable: int
    no_majority: int
    accuracy: Measured | None
    one_order: Measured | None
    same: Measured | None
    kappa: Measured | None
    judge_ties: Measured | None
    people_ties: Measured | None
    consistency: Measured | None
    position_effect: Measured | None
    alpha: Measured | None = None
    alpha_with_judge: Measured | None = None
    person_person: Measured | None = None
    judge_person: Measured | None = None


@dataclass(frozen=True)
class _Pair:
    prompt: Hashable
    labels: tuple[Choice, ...]
    people: Choice
    judge: Choice
    orders: tuple[float, float]
    asked: bool


def by_subset(compared: Sequence[Compared], verdicts: Sequence[Verdict]) -> dict[str, Agreement]:
    """The agreement of all pairs under "all", then that of each subset where there are several."""
    found = {"all": agreement(compared, verdicts)}
    subsets = sorted({pair.subset for pair in compared})
    for subset in subsets if len(subsets) > 1 else ():
        rows = [i for i, pair in enumerate(compared) if pair.subset == subset]
        mine = [compared[i] for i in rows], [verdicts[i] for i in rows]
        found[subset or "without a subset"] = agreement(*mine)
    return found


def agreement(compared: Sequence[Compared], verdicts: Sequence[Verdict]) -> Agreement:
    """What the verdicts on pairs have in common with what people said of them.

    Args:
        compared: the pairs.
        verdicts: in the order of the pairs, with the first answer as the policy's.
    """
    assert len(compared) == len(verdicts), "one verdict for each pair"
    decided = [majority(pair.labels) for pair in compared]
    judged = [_judged(*row) for row in zip(compared, decided, verdicts, strict=True)]
    pairs = [pair for pair in judged if pair is not None]
    prompts = [pair.prompt for pair in pairs]
    asked = [pair for pair in pairs if pair.asked]
    whom = [pair.prompt for pair in asked]
    named = [pair for pair in pairs if pair.people != "tie"]
    whose = [pair.prompt for pair in named]
    return Agreement(
        pairs=len(compared), prompts=len({pair.prompt for pair in compared}),
        unreadable=sum(v.preference is None for v in verdicts),
        no_majority=decided.count(None),
        accuracy=clustered_share([_right(p.judge, p.people) for p in named], whose),
        one_order=clustered_share([_one_order(p) for p in named], whose),
        same=clustered_share([float(p.judge == p.people) for p in pairs], prompts),
        kappa=cohen_kappa([p.judge for p in pairs], [p.people for p in pairs], prompts),
        judge_ties=clustered_share([float(p.judge == "tie") for p in pairs], prompts),
        people_ties=clustered_share([float(p.people == "tie") for p in pairs], prompts),
        consistency=clustered_share(
            [float(choice(p.orders[0]) == choice(p.orders[1])) for p in asked], whom
        ),
        position_effect=clustered_mean([p.orders[0] - p.orders[1] for p in asked], whom),
        **_among_people(pairs),
    )  # fmt: skip


def choice(preference: float) -> Choice:
    """Which answer a preference for the first one means."""
    if preference == 0.5:
        return "tie"
    return "first" if preference > 0.5 else "second"


def _judged(pair: Compared, people: Choice | None, verdict: Verdict) -> _Pair | None:
    if people is None or verdict.preference is None:
        return None
    first, second = verdict.shown_first, verdict.shown_second
    # Equal answers are a tie in whatever order they would be shown.
    orders = (0.5 if first is None else first, 0.5 if second is None else second)
    return _Pair(
        pair.prompt, pair.labels, people, choice(verdict.preference), orders, verdict.asked
    )


def _right(judge: Choice, people: Choice) -> float:
    return 0.5 if judge == "tie" else float(judge == people)


def _one_order(pair: _Pair) -> float:
    return sum(_right(choice(order), pair.people) for order in pair.orders) / 2


def _among_people(pairs: Sequence[_Pair]) -> dict[str, Measured | None]:
    """What takes several people for a pair; nothing where there was one."""
    several = [pair for pair in pairs if len(pair.labels) > 1]
    if not several:
        return {}
    prompts = [pair.prompt for pair in several]
    same = [[float(a == b) for a, b in combinations(pair.labels, 2)] for pair in several]
    theirs = [[float(label == pair.judge) for label in pair.labels] for pair in several]
    return {
        "alpha": krippendorff_alpha([pair.labels for pair in several], prompts),
        "alpha_with_judge": krippendorff_alpha(
            [(*pair.labels, pair.judge) for pair in several], prompts
        ),
        "person_person": clustered_share([sum(row) / len(row) for row in same], prompts),
        "judge_person": clustered_share([sum(row) / len(row) for row in theirs], prompts),
    }
