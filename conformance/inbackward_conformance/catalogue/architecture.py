"""The base of models from other libraries, which the extra `architectures` installs."""

from __future__ import annotations

from typing import Any

from torch import nn


class Architecture(nn.Module):
    """A model of a library, in a module that returns its loss.

    Attributes:
        returns_loss: whether the output is the loss.
    """

    returns_loss = True

    def __init__(self) -> None:
        super().__init__()
        self.model = self.build()

    def build(self) -> Any:
        """Return the model of the library."""
        raise NotImplementedError
