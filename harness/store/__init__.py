"""Stages and their results: keys, locks, manifests. Nothing else knows where a result lies."""
