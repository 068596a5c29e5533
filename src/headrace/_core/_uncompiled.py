"""What the single-source modules ask of `cython` when they run as plain Python and Cython is not
installed."""

compiled = False
