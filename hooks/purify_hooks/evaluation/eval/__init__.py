"""`purify eval` and `purify tune`: the harms that a policy stops, its cost, and its best setting."""
