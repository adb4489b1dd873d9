"""From a request to keys and values."""
