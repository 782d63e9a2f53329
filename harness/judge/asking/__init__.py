"""A language model as judge: how it is asked, read, waited for, paid and remembered."""
