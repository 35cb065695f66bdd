"""Runs plans by the standard loop and by an implementation, and compares the results."""
