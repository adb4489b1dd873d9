"""Catalog runs against the generator's own throughput, and through kills."""
