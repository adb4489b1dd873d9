"""The catalog file: read, checked as a whole, and turned into concepts to train and pictures to draw."""
