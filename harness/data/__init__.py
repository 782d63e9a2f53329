"""Load, render, tokenise, truncate, batch."""
