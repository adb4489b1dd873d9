"""`python -m detex_studio`: the web page, for containers."""

from detex_studio.server import main

if __name__ == "__main__":
    main()
