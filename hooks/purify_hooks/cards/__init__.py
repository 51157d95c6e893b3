"""`purify slm card`: a provenance card, begun from a model's own files."""
