"""`purify bench --preset gpu`: the test bed's pair at the size of models that are worth an accelerator."""
