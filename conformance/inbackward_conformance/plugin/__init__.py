"""The pytest plugin: options, the session that records, one case, and ranks of torchrun.

Where pytest is not pointed at the suite the plugin does nothing and adds no options. Importing it imports neither torch
nor hypothesis.
"""

from inbackward_conformance.plugin.options import pytest_configure, pytest_load_initial_conftests

__all__ = ["pytest_configure", "pytest_load_initial_conftests"]
