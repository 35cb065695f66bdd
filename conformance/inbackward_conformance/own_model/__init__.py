"""Is optimizer in backward exact on a model of one's own? `check_training` tells, and the command `check`.

Importing this package does not import torch.
"""
