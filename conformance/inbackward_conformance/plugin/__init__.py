"""The pytest plugin: options, selection of cases, the recorded session, and runs under torchrun.

The plugin adds no options and does nothing unless pytest runs the suite. Importing it imports neither torch nor
Hypothesis.
"""

from inbackward_conformance.plugin.options import (
    pytest_configure,
    pytest_load_initial_conftests,
    pytest_sessionstart,
)

__all__ = ["pytest_configure", "pytest_load_initial_conftests", "pytest_sessionstart"]
