"""Ranks: the processes that run distributed cases.

Ranks run a job, a function with its arguments, in a process group of its own, and each returns an answer. `Pool` starts
ranks on this machine, `Cluster` uses those of torchrun, and `DryRun` is one rank of a fake process group. Importing
this package does not import torch.
"""


class NotUnderTorchrun(RuntimeError):
    """Raised when torchrun did not start this process; the message is one line with the remedy."""
