"""The Python client of the detex services, and the `detex` command."""
