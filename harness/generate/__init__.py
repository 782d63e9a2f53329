"""Completions from a trained policy."""
