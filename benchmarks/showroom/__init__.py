"""A rendered world of product photos in which every factor is known."""
