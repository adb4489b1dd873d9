"""A request for pictures as the engine takes it, and what a picture says of where it comes from."""
