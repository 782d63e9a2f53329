"""One file, one task, one function of that name; worlds beside them."""
