"""What is reported of a run: the record, expected failures, the terminal, and the matrix."""
