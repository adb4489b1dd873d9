"""What each kernel gives against the best that torch has for the same work."""
