"""The checks, a module for each part of the contract. What is in `tasklink.testing.catalogue` is run."""
