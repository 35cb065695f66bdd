"""Ranks: the processes on which distributed cases run.

A job is a function and its arguments; ranks carry it out together, in a process group that is made for it, and each
gives an answer. `Pool` keeps processes of this machine up; `Cluster` uses those that torchrun made. Importing this
package imports no torch.
"""


class NotUnderTorchrun(RuntimeError):
    """There is no cluster; the message is one line with the remedy."""
