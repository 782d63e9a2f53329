"""The order of stages: the only part that knows it."""
