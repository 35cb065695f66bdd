"""The conformance suite for *optimizer in backward* in PyTorch.

Authors of an implementation need `NotOffered`, and `check_implementation` if they want one call in a test of their
own; everything else is reached through pytest, by `pytest --pyargs inbackward_conformance --implementation NAME`, and
through `python -m inbackward_conformance`. Importing this package imports no torch.
"""

from inbackward_conformance.api import RunFailed, check_implementation
from inbackward_conformance.outcome import NotOffered

__all__ = ["NotOffered", "RunFailed", "check_implementation"]
