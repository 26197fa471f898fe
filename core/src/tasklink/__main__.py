"""`python -m tasklink`: the program `tasklink`, where scripts are not on PATH."""

from tasklink.cli import main

main()
