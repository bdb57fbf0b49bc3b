"""Measures the tunnel beside its peers, on one machine, in one run: `make bench`.

    load/         the generators and the sink at both ends, in processes of their own
    tunnels/      what is measured from end to end: ours, and each peer, one file each
    relays/       what is measured as a relay alone
    references/   the peers that are written here, and pins of those that are installed
    figures/      what is measured, one file each, with what it must reach
    report/       the table on the terminal, docs/benchmarks.md, its chart

`session.py` puts them together: in each round every subject once, on a quiet machine. A run
is one JSON line; what is said of it is the median of rounds, and of ratios within a round.
"""
