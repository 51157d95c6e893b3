"""`purify report`: what is measured, bounded and known of a pair and its policy, as evidence."""
