"""What every source that asks a server shares: the wire, the checks, the open streams."""
