"""Two tokenizers, one alphabet: a model of tokens is also a model of any symbols its tokens spell."""
