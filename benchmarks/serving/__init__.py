"""Serving: the generator's engine against diffusers' StableDiffusionPipeline on the same base model."""
