"""What is said of a session: on the terminal, in docs/benchmarks.md, as a chart."""
