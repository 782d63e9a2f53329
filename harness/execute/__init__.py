"""Carry out stages: here, or elsewhere."""
