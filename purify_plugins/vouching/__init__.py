"""Who vouches for a model's files: a provenance card and a signature, checked before and after loading."""
