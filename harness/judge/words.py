"""What the facts of a board's judging say to its reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LOW = 0.5
"""A share of consistent verdicts below which the order of the answers decides more than they do."""


def judging_words(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who judged and how it was asked, what it took, and how far its verdicts hang on the order.

    Args:
        facts: of every stage that judged for one board.
    """
    if not facts:
        return []
    who = "; ".join(dict.fromkeys(map(_who, facts)))
    count, equal = _sum(facts, "verdicts"), _sum(facts, "equal")
    lost = sum(each["unreadable"]["verdicts"] for each in facts)
    told = [
        f"judged by {who}: {count:,} answers against the baseline's, each in both orders"
        f"{f', {equal:,} of them equal to it' if equal else ''}"
        f"{f'; {lost:,} without a verdict that could be read' if lost else ''}"
    ]
    return [*told, *_order(facts), *_cut(facts), *_taken(facts)]


def _who(each: Mapping[str, Any]) -> str:
    if each["kind"] == "rule":
        return "the world's own rule"
    if each["kind"] == "reward-model":
        return f"the reward model {each['model']}"
    reading = each["reading"]
    how = "log-probabilities" if reading["used"] == "logprobs" else "the text"
    why = f" ({reading['why']})" if reading.get("why") else ""
    return f"{each['model']} by template '{each['template']}', read from {how} of its answers{why}"


def _order(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far apart the cells are in what order does; nothing of a rule that knows no order."""
    if all(each["kind"] == "rule" for each in facts):
        return []
    effects = [each["position_effect"]["value"] for each in facts if each["position_effect"]]
    same = [each["consistency"]["value"] for each in facts if each["consistency"]]
    if not effects:
        return []
    told = [
        f"the judge prefers what is shown first by {100 * min(effects):+.1f} to "
        f"{100 * max(effects):+.1f} points, and is consistent in {100 * min(same):.0f} to "
        f"{100 * max(same):.0f} % of verdicts, row by row"
    ]
    if min(same) < LOW:
        told.append(
            "the order decides more verdicts than the answers do: these win rates say little, "
            "however narrow their intervals are"
        )
    return told


def _cut(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reward model could not read in full."""
    cut: Counter[str] = Counter()
    for each in facts:
        cut.update(each.get("model facts", {}).get("cut", {}))
    words = [f"{n:,} {what}" for what, n in cut.items() if n]
    return [f"{' and '.join(words)} were cut to what the reward model can read"] if words else []


def _taken(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    tokens: Counter[str] = Counter()
    for each in facts:
        tokens.update(each.get("tokens", {}))
    words = [f"{n:,} {kind} tokens" for kind, n in sorted(tokens.items()) if n]
    costs: Counter[str] = Counter()
    for each in facts:
        if "cost" in each:
            costs[each["cost"]["currency"]] += each["cost"]["all"]
    words += [f"{cost:.2f} {currency}" for currency, cost in sorted(costs.items())]
    return [f"its verdicts took {', '.join(words)}"] if words else []


def _sum(facts: Iterable[Mapping[str, Any]], key: str) -> int:
    return sum(int(each[key]) for each in facts)
