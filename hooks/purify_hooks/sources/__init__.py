"""Logit sources made of other sources."""
