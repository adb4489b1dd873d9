"""Records that all of the trainer speaks of: jobs, hyperparameters, attributes, prompts; without torch."""
