"""The conformance suite for *optimizer in backward* in PyTorch.

An adapter raises `NotOffered` and declares `OwnOptimizer`; `check_implementation` runs the suite from a test, and
`check_training` checks an implementation on a model of one's own. Otherwise the suite runs as
`pytest --pyargs inbackward_conformance --implementation NAME`, and its tools as `python -m inbackward_conformance`.
Importing this package does not import torch.
"""

from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.declarations import OwnOptimizer
from inbackward_conformance.api import RunFailed, check_implementation
from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.own_model.unusable import UnusableModel

if TYPE_CHECKING:
    from inbackward_conformance.own_model.check import check_training

__all__ = ["NotOffered", "OwnOptimizer", "RunFailed", "UnusableModel", "check_implementation", "check_training"]


def __getattr__(name: str) -> Any:
    if name != "check_training":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from inbackward_conformance.own_model.check import check_training  # noqa: PLC0415 (it imports torch)

    return check_training
