"""Finding and driving an implementation, and the adapters that ship: each imports its library when it is used."""
