"""The comparator: takes mirrored requests, scores both arms, reports what it saw.

    frames -> comparator.offer -> intake -> comparison -> pairs -> reporting
                                    ^           |
               admission, watched --+           +-> scoring, generation
    attendance: gauges, health, fingerprints, selftest

Read: watched (what is compared), intake and admission (what is not, and why), comparison, pairs,
comparator, attendance, server. `docs/shadow.md` has the rules and the figures.
"""
