"""From what a caller gives to one outcome per prompt."""
