"""The torture harness: it starts the real command in real processes, hurts it, and holds it to what
docs/reliability.md promises.

``make torture``, or ``python -m tests.torture --help``. Each file is one kind of harm and has

    COUNT                                how many cases a whole campaign has run(case, place,
    references, tally)  one of them: what it counts, and every fault that it finds, goes into the
    tally

and :mod:`harness` has what they share. A case is a function of (harm, seed, number) alone.
"""
