"""Stages and their results: keys, locks, manifests. Nothing else touches run paths."""
