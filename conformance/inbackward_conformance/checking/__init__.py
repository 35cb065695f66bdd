"""Holds an implementation to plans: to those of a requirement, and to those that Hypothesis draws."""
