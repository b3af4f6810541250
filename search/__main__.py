"""`python -m search` is `embtune`."""

from search.cli import main

main()
