"""What every detex service and client shares, free of torch."""

from importlib.metadata import version

__version__ = version("detex")
