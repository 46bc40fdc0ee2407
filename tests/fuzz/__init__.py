"""Everything that drawbench reads, damaged at random.

A file starts sound and is damaged in its bytes or its structure, then a command or a loader reads
it. The outcome must be a valid result or one clear sentence, within limits of time and memory, with
nothing written elsewhere and nothing executed (:mod:`limits`). A short version is part of the usual
tests; the campaign is ``python -m pytest tests/fuzz --hypothesis-profile=campaign``.
"""
