"""What every logit source shares: wrappers, batching across threads, the read scope."""
