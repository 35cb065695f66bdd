"""Adapters for implementations that other people wrote; each imports its library only when it is used."""
