"""A scenario of training as plain data.

A plan can be printed (its `repr` is the expression that builds it), pickled, compared and drawn. It holds names and
numbers, but no model, tensor or optimizer. `inbackward_conformance.training` runs it; `inbackward_conformance.repro`
writes it as a script. Importing this package does not import torch.
"""

from inbackward_conformance.plan.assignment import ALL, MATRICES, OTHERS, TRAINED, Assignment, Group, TensorOption
from inbackward_conformance.plan.need import Need
from inbackward_conformance.plan.plan import Plan
from inbackward_conformance.plan.ranks import Ranks

__all__ = ["ALL", "MATRICES", "OTHERS", "TRAINED", "Assignment", "Group", "Need", "Plan", "Ranks", "TensorOption"]
