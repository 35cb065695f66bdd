"""The two methods of training as source: the standard loop, and an implementation.

They mirror `inbackward_conformance.training.standard_loop` and `inbackward_conformance.training.in_backward`; a test
compares what scripts and runs leave.
"""
