"""How fast is it here: what `tasklink bench` and tests/benchmarks measure, between two real processes.

    item            what is measured between two processes: both halves of each item
    contender       who is measured: something that carries objects from one process to another
    ours            tasklink's own: a communicator by itself, and an Executor with its Tasks
    copying         what no one beats: the memory itself
    child, host     the two processes
    visit           a fresh pair of processes, from its start to its end or its deadline
    session         who is visited when, and what came of it
    statistic       many values to few
    machine         where it was measured
    advice          which protocol for what
    picture         the same, drawn (extra: tasklink[plot])

Rules of this package: it uses the public interface, as a plugin or a user's program does. All who are compared carry
the same objects, take turns in rounds, and are in processes of their own: nobody is disturbed by the threads, the
memory or the death of another. Who hangs is ended at a deadline. No other part of tasklink imports it.
"""
