"""The models, optimizers, schedulers and hooks that plans name."""
