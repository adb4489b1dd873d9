"""Photos of a training set on their way to tensors: crops, variations, latents."""
