"""Logit sources that ask a model's server."""
