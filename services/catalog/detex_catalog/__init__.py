"""Nightly catalog runs: a table of products becomes checked pictures, through the trainer and the generator.

Talks to both services over gRPC by the Python client alone; `detex catalog` is its command.
"""
