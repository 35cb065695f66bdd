"""Models, optimizers, schedulers and hooks that plans name, and how they are built."""
