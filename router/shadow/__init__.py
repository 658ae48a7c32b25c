"""The comparator: takes mirrored requests, scores both arms, and reports the pairs.

    frame_server -> comparator.offer -> queue -> comparison -> pairs -> reporting
                                          ^           |
                 admission, watch_list ---+           +-> scoring, generation
    engine_checks: gauges, health, fingerprints, selftest; engine_facts is shared with comparator

Reading order: watch_list (what is compared), queue and admission (what is not, and why),
comparison, pairs, comparator, engine_facts, engine_checks, server. `docs/shadow.md` has the rules
and the figures.
"""
