"""The conformance suite for *optimizer in backward* in PyTorch.

Authors of an implementation need `NotOffered` alone; everything else is reached through pytest, by
`pytest --pyargs inbackward_conformance --implementation NAME`, and through `python -m inbackward_conformance`.
Importing this package imports no torch.
"""

from inbackward_conformance.outcome import NotOffered

__all__ = ["SPEC_VERSION", "NotOffered"]

SPEC_VERSION = "1.0"
