"""What a judge said, as tables of text; foreign text is shown and never obeyed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.board.columns import Column
from harness.board.numbers import NONE, fixed, places, quantity
from harness.board.terminal import WIDTH, aligned, wrapped
from harness.board.text import shortened
from harness.judge.exchange.agreement import Agreement
from harness.judge.exchange.figures import Figures
from harness.stats.agreement import Measured

ROUNDING = 1e-6
LONGEST_WORDS = 60


def print_figures(found: Sequence[Figures]) -> None:
    """Print one row for each model, and what to know before believing it."""
    print(f"Against {_plain(found[0].baseline)}, both orders, 95 % intervals over prompts\n")
    columns = [
        Column("model", tuple(f.generator for f in found), number=False),
        Column("win rate", tuple(_told(f.win_rate, f) for f in found)),
        Column("SE", tuple(_error(f.win_rate) for f in found)),
        Column("length-controlled", tuple(_told(f.length_controlled, f) for f in found)),
        Column("SE of it", tuple(_error(f.length_controlled) for f in found)),
        Column("discrete", tuple(_interval(f.discrete_win_rate) for f in found)),
        Column("consistency", tuple(_percent(f.consistency) for f in found)),
        Column("position effect", tuple(_percent(f.position_effect) for f in found)),
        Column("prompts", tuple(str(f.prompts) for f in found)),
        Column("equal", tuple(str(f.equal) for f in found)),
        Column("unreadable", tuple(str(f.unreadable) for f in found)),
        Column("characters", tuple(fixed(f.characters, 0) for f in found)),
    ]
    _table(columns)
    print()
    for f in found:
        for sentence in (*filter(None, [f.unreliable and f"UNRELIABLE: {f.unreliable}"]),
                         *f.warnings):  # fmt: skip
            _say(f"{f.generator}: {sentence}")
    baseline = fixed(found[0].baseline_characters, 0)
    _say(f"Win rates in percent; a mean of {baseline} characters in the baseline's answers.")


def print_noise(again: Mapping[str, Any] | None) -> None:
    """Print how much a judge differs from itself, where that was measured."""
    if again:
        difference = again["mean_absolute_difference"]
        told = f"{difference['value']:.3g}" if difference else NONE
        _say(
            f"Asked the same once more in {again['comparisons']} comparisons, the judge differs "
            f"from itself by {told} on average (0: never, 1: always the opposite)."
        )


def print_agreement(found: Mapping[str, Agreement], unreadable: float) -> None:
    """Print one row for each subset: the judge and the people, and people among themselves."""
    print("Agreement with people, in percent; 95 % intervals over prompts\n")
    rows = list(found.values())
    columns = [Column("subset", tuple(found), number=False)]
    for title, name in (
        ("accuracy", "accuracy"), ("asked in one order", "one_order"),
        ("same, ties too", "same"),
    ):  # fmt: skip
        columns.append(Column(title, tuple(_percent(getattr(a, name)) for a in rows)))
    columns.append(Column("kappa", tuple(_interval(a.kappa) for a in rows)))
    for title, name in (("consistency", "consistency"), ("position effect", "position_effect")):
        columns.append(Column(title, tuple(_percent(getattr(a, name)) for a in rows)))
    for title, name in (("judge's ties", "judge_ties"), ("people's ties", "people_ties")):
        columns.append(Column(title, tuple(_share(getattr(a, name)) for a in rows)))
    for title, name in (
        ("pairs", "pairs"), ("prompts", "prompts"), ("unreadable", "unreadable"),
        ("no majority", "no_majority"),
    ):  # fmt: skip
        columns.append(Column(title, tuple(str(getattr(a, name)) for a in rows)))
    _table(columns)
    print()
    everything = found["all"]
    if everything.unreadable > unreadable * everything.pairs:
        _say(
            f"UNRELIABLE: {everything.unreadable} of {everything.pairs} pairs have no verdict that "
            f"could be read, more than the share of {unreadable:g} that judge.unreadable allows"
        )
    if everything.person_person and everything.judge_person:
        _say(
            f"Two people who compared the same pair agree in {_percent(everything.person_person)} "
            f"%, the judge and one of them in {_percent(everything.judge_person)} %."
        )
        _say(
            f"Krippendorff's alpha: {_interval(everything.alpha)} among the people, "
            f"{_interval(everything.alpha_with_judge)} with the judge as one more."
        )


def print_unreadable(said: Sequence[str]) -> None:
    """Print some of what a judge said that could not be read."""
    if said:
        words = ", ".join(f"'{shortened(text, LONGEST_WORDS)}'" for text in said)
        _say(f"What could not be read was, for example: {words}")


def print_judge(facts: Mapping[str, Any]) -> None:
    """Print who judged, how its answers were read, and what that took."""
    who = " ".join(str(facts[key]) for key in ("kind", "model", "base_url") if key in facts)
    _say(f"Judge: {who}")
    if "template" in facts and "reading" in facts:
        how = facts["reading"]
        used = f"; read: {how['used']} ({how['why']})" if "used" in how else ""
        _say(f"Template: {facts['template']} {facts['template_digest']}{used}")
    if "asked" in facts:
        new, tokens = facts["new_tokens"], facts["tokens"]
        _say(
            f"Comparisons: {facts['asked']} asked, {facts['cached']} kept from before; tokens now: "
            f"{_tokens(new)}; of all of them: {_tokens(tokens)}"
        )
    if failures := facts.get("failed_calls"):
        _say("Calls that failed and were made again: "
             + ", ".join(f"{count} {reason}" for reason, count in failures.items()))  # fmt: skip
    if cost := facts.get("cost"):
        guess = cost["calls_without_usage"]
        told = f" ({guess} calls without a count of tokens, at most)" if guess else ""
        _say(f"Cost now: {cost['new']:.4g} {cost['currency']}{told}; of all: {cost['all']:.4g}")


def _table(columns: Sequence[Column]) -> None:
    print("\n".join(aligned(columns, WIDTH)))


def _say(sentence: str) -> None:
    print("\n".join(wrapped(sentence, WIDTH)))


def _plain(text: str) -> str:
    return "".join(wrapped(text, WIDTH, ""))


def _told(measured: Measured | None, row: Figures) -> str:
    return _interval(measured) + (" unreliable" if row.unreliable else "")


def _interval(measured: Measured | None, scale: float = 1.0) -> str:
    """The value, and in brackets its interval."""
    if measured is None:
        return NONE
    n = _places(scale * measured.standard_error) if measured.standard_error is not None else 1
    value = fixed(scale * measured.value, n)
    if measured.low is None or measured.high is None:
        return f"{value} [?]"
    return f"{value} [{fixed(scale * measured.low, n)}, {fixed(scale * measured.high, n)}]"


def _places(error: float) -> int:
    """As many as the error supports; where it is but rounding, one."""
    return min(places([error]), 3) if error > ROUNDING else 1


def _percent(measured: Measured | None) -> str:
    return _interval(measured, 100.0)


def _share(measured: Measured | None) -> str:
    return NONE if measured is None else fixed(100.0 * measured.value, 1)


def _error(measured: Measured | None) -> str:
    if measured is None or measured.standard_error is None:
        return NONE
    return fixed(measured.standard_error, _places(measured.standard_error))


def _tokens(counts: Mapping[str, int]) -> str:
    return f"{quantity(counts.get('input', 0))} in, {quantity(counts.get('output', 0))} out"
