"""Everything that drawbench reads, damaged: ``python -m tests.fuzz --cases 20000``, and a short
version in the normal tests.

Each file makes one kind of input: it begins from a valid one and damages it, in its structure
(lengths, types, headers that promise absurd sizes, wrong keys, archives with names that lead
elsewhere, pickles that would run) and in its bytes. What may come of it is in :mod:`.engine`: a
valid result or one clear sentence.
"""
