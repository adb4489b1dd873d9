"""The generator service: prompts with concepts become pictures."""
