"""Long runs against real services: a hostile tenant beside honest ones, and kills of whatever runs."""
