"""The trainer service: photos of one subject become a concept."""
