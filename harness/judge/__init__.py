"""Scores for completions."""
