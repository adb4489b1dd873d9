"""`python -m detex_catalog`: the commands of `detex catalog`, for containers."""

from detex_catalog.cli import main

if __name__ == "__main__":
    main()
