"""A long run of the whole tunnel under random faults: `make soak`.

python -m soak [--seconds 600] [--seed N] [--output build/soak]   (with tests/ in PYTHONPATH)

`streams` says what applications do, `chaos` what breaks, `watch` what is measured and when it
counts as flat, `run` puts them together and judges.
"""
