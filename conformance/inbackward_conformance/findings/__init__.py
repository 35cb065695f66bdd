"""Findings: the defects that expected failures describe, each with the shortest script that shows it, as pages."""
