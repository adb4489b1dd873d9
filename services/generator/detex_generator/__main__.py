"""`python -m detex_generator`: the same as `detex-generator`."""

from detex_generator.server import main

if __name__ == "__main__":
    main()
