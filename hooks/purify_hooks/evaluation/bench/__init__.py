"""`purify bench`: what purification costs, measured beside what it replaces."""
