"""Screenshots of Studio, taken of a whole run on the embedded base model."""
