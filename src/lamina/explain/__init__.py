"""What a network looked at, how sure it is, and whether a scan is one that it can judge."""
