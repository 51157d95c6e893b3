"""What every source that asks a server shares: the http, the checks, the open streams."""
