"""A small Stable Diffusion, trained from scratch on the rendered world."""
