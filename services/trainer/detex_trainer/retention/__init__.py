"""What is deleted, when, and what is owed until it is."""
