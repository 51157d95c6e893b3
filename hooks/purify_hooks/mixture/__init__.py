"""Several small models as one: the weighted mean of their probabilities."""
