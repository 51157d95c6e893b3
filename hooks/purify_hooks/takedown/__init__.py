"""Named works taken out of an LLM's rows before the policy, without training: a negative n-gram anchor."""
