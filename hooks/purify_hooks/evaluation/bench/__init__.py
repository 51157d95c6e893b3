"""`purify bench`: the speed and memory of purification beside other designs."""
