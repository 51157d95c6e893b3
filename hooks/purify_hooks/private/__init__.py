"""Private data: found before the LLM reads it, and kept from it."""
