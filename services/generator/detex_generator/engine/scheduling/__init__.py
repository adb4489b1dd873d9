"""Who waits, and whose turn it is."""
