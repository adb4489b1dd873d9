"""What a drawn picture is checked for before it counts: likeness, blank, near-duplicate, unsafe."""
