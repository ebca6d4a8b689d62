"""`python -m pipeline` is `retl`."""

from pipeline.cli.app import main

main()
