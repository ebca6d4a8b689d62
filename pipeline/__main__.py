"""`python -m pipeline` is `retl`."""

from pipeline.cli.app import main

if __name__ == "__main__":
    main()
