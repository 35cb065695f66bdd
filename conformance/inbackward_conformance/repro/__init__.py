"""Writes scripts that reproduce a failing case with torch and the implementation's own calls, without the suite.

    case ──► plan ──► both loops as source ─────┐
      └────► body of the requirement, inlined ──┴─► format ──► one Python file

The functions in `write` write events into a `Script`, as those in `training.execute` execute them in a `TrainingRun`.
"""
