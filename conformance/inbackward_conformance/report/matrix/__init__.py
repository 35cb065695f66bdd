"""Which implementation keeps which promise: `python -m inbackward_conformance matrix`, from records to a page."""
