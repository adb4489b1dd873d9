"""The program that trains jobs: what to train on standard input, events as JSON lines on standard output."""
