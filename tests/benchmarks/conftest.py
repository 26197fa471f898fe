"""Nothing here is a test: it is run by hand, and imports what may not be installed."""

collect_ignore_glob = ["*.py"]
