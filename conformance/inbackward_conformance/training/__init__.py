"""Carries plans out, by the standard loop and by an implementation, and compares what the two leave."""
