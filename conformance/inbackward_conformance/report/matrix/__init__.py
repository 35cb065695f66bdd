"""The matrix of implementations and requirements: `python -m inbackward_conformance matrix`."""
