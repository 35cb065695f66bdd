"""The errors for a model that cannot be checked."""

from __future__ import annotations


class UnusableModel(ValueError):
    """Raised when a model cannot be checked; the message says what was found, and the remedy."""


class NotDeterministic(UnusableModel):
    """Raised when the standard loop itself trains differently each time, so that there is nothing to compare with."""
