"""Shared by all logit sources: wrappers, batching across threads, the read scope."""
