"""Base models in their full sizes with random weights: what they cost, measured on a GPU against diffusers."""
