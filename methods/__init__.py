"""One file, one method, one function of that name."""
