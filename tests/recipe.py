"""The recipe of PyTorch's tutorial as a class, for implementations of ours that are made of it."""

from __future__ import annotations

from inbackward_conformance.adapters.shipped import tutorial


class TutorialRecipe:
    apply = staticmethod(tutorial.apply)
    optimizers = staticmethod(tutorial.optimizers)
    distribution = "torch"
