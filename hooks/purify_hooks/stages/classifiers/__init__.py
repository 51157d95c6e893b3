"""Classifiers of the guardian: a directory of transformers', the SLM's own odds, and a server's."""
