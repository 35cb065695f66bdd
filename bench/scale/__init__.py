"""Counts what a rank sends, keeps and steps in one step of training, as layers, parameters and ranks grow."""
