"""The conformance suite for *optimizer in backward* in PyTorch.

An adapter raises `NotOffered` and declares `OwnOptimizer`; `check_implementation` runs the suite from a test. Otherwise
the suite runs as `pytest --pyargs inbackward_conformance --implementation NAME`, and its tools as
`python -m inbackward_conformance`. Importing this package does not import torch.
"""

from inbackward_conformance.adapters.declarations import OwnOptimizer
from inbackward_conformance.api import RunFailed, check_implementation
from inbackward_conformance.outcome import NotOffered

__all__ = ["NotOffered", "OwnOptimizer", "RunFailed", "check_implementation"]
