"""Two tokenizers: a model of tokens, presented as a model of the symbols they spell."""
