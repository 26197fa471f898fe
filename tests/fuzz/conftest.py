"""Targets are not for pytest to import: they watch their whole process for good; and the engine needs atheris."""

collect_ignore_glob = ["*.py"]
