"""Checks an implementation with the plans of a requirement, and with plans that Hypothesis draws."""
