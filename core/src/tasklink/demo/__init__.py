"""The demonstration: three Tasks on real input, over every protocol that is installed, and the results compared.

    library     a Task that parses the standard library of the interpreter that runs it
    echo        a Task that obeys signals
    trial       runs both, and a program that knows nothing of tasklink, over one protocol after the other

It uses what `from tasklink import …` gives and the standard library, and nothing else: copy from it.
"""
