"""Binds what a plan needs of an optimizer to a class: torch's, or one that the implementation brings along."""

from inbackward_conformance.binding.bind import bind, bind_event, bind_plan

__all__ = ["bind", "bind_event", "bind_plan"]
