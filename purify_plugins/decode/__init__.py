"""Three ways to walk through an answer, one law."""
