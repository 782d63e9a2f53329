"""How a language model is asked: one TOML file for each form."""
