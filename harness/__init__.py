"""A benchmark-and-evaluation harness for preference optimisation."""
