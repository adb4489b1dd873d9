"""Learning a concept: methods, photos as tensors, the training of jobs."""
