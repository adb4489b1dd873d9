"""What tells most on a GPU, within a time that is given."""
