"""Reports of a run: the record, expected failures, the terminal summary, and the matrix."""
