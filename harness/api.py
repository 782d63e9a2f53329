"""All that a plug-in may import from the harness."""

from harness.contracts.judge import Judge, Reading, Versus
from harness.contracts.logprobs import LogProbs, PairLogProbs, PairTokens, PerPair
from harness.contracts.method import Method, State, method
from harness.contracts.task import (
    Answers,
    Contest,
    Corpus,
    Metric,
    Sizes,
    SmallModel,
    Task,
    TaskPlugin,
    task,
)
from harness.data.load import Rows, load_rows
from harness.data.texts import KeptTexts, keep_texts
from harness.errors import DataError, RequestError
from harness.judge.rewards.classifier import load_classifier, sentiment_reward
from harness.records import Completion, Pair, Prompt

__all__ = [
    "Answers",
    "Completion",
    "Contest",
    "Corpus",
    "DataError",
    "Judge",
    "KeptTexts",
    "LogProbs",
    "Method",
    "Metric",
    "Pair",
    "PairLogProbs",
    "PairTokens",
    "PerPair",
    "Prompt",
    "Reading",
    "RequestError",
    "Rows",
    "Sizes",
    "SmallModel",
    "State",
    "Task",
    "TaskPlugin",
    "Versus",
    "keep_texts",
    "load_classifier",
    "load_rows",
    "method",
    "sentiment_reward",
    "task",
]
