"""Finds and calls implementations; the shipped adapters, each of which imports its library when it is used."""
