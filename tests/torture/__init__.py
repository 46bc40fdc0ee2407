"""A fault-injection campaign: real commands in real processes, held to docs/reliability.md.

Run it with ``make torture`` or ``python -m tests.torture --help``. Each harm is a module with

    COUNT                               number of cases in a full campaign
    run(case, place, references, tally) runs one case and enters counts and faults into the tally

A case is a function of (harm, seed, number) alone. :mod:`processes` starts and strikes commands,
:mod:`checks` judges what they leave behind, :mod:`campaign` runs the cases.
"""
