"""A run: training, drawing, checks, and a journal that a kill at any moment cannot spoil."""
