"""Which SLM for which LLM: candidates with their licence, training data, tokenizer and cost."""
