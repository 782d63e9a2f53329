"""A reference policy in memory: frozen where a loss needs its logits, or following the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.budget import Budget
from harness.contracts.logprobs import PairLogProbs
from harness.data.tokens import TokenPair
from harness.engine.engines import Engine, pair_logprobs
from harness.errors import RequestError
from harness.train.parts import Cut
from harness.train.team import ALONE, Team


@dataclass(frozen=True)
class LiveReference:
    """Log-probs of a reference whose weights may move, computed when they are asked for.

    Attributes:
        model: a causal model of its own; nothing of it requires a gradient.
        pairs: of one split.
        team: processes that ask for the same pairs at the same time, and share the work.
    """

    engine: Engine
    model: Any
    pairs: Sequence[TokenPair]
    micro_pairs: int
    micro_tokens: int = Budget.micro_tokens
    team: Team = ALONE

    def __len__(self) -> int:
        return len(self.pairs)

    def rows(self, rows: Sequence[int], where: torch.device) -> PairLogProbs:
        """Log-probs of these pairs by the reference as it stands, padded to the longest."""
        cut = Cut(self.micro_pairs, self.micro_tokens, self.team)
        with torch.no_grad():
            found = cut.see(
                lambda some: {"policy": pair_logprobs(self.engine, self.model, some)},
                [self.pairs[row] for row in rows],
            )
        return found["policy"]


@dataclass(frozen=True)
class Follower:
    """Moves a reference towards the policy: mix * policy + (1 - mix) * reference.

    Attributes:
        every: optimizer steps between two moves.
    """

    policy: Any
    reference: Any
    mix: float
    every: int

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The reference's weights, for checkpoints."""
        return dict(self.reference.named_parameters())

    def after(self, step: int) -> None:
        """Move, if it is time; `step` counts from 0 and its update has been made."""
        if (step + 1) % self.every:
            return
        followed = dict(weights(self.policy))
        with torch.no_grad():
            for name, parameter in self.reference.named_parameters():
                parameter.lerp_(followed[name].to(parameter), self.mix)


def frozen(model: Any) -> Any:
    """The model without dropout, none of whose weights requires a gradient."""
    return model.eval().requires_grad_(False)


def check_followable(policy: Any) -> None:
    """A reference of one embedding cannot follow a policy whose adapter makes two of it.

    Raises:
        RequestError: input and output embeddings are one tensor and an adapter is on either.
    """
    model = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    held = [getattr(module, "base_layer", module).weight for module in ends]
    if held[0] is held[1] and any(hasattr(module, "get_delta_weight") for module in ends):
        raise RequestError(
            "this method's reference moves towards the policy, and cannot here: the model's input "
            "and output embeddings are one tensor, and an adapter on either makes two of it. Leave "
            "the embeddings and the output head out of the LoRA targets"
        )


def weights(policy: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names of the plain model; those of adapters are added to their base's."""
    model = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    adapted = {name: m for name, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    for name, parameter in model.named_parameters():
        owner, _, rest = name.partition(".base_layer.")
        if owner in adapted:
            whole = parameter.detach()
            if rest == "weight":
                whole = whole + adapted[owner].get_delta_weight("default").detach()
            yield f"{owner}.{rest}", whole
        elif not any(name.startswith(f"{own}.") for own in adapted):
            yield name, parameter.detach()
