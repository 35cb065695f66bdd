"""Scripts that reproduce a failing case: torch and the implementation's own calls, nothing of the suite.

    case ──► plan ──► both loops as source ─────┐
      └────► body of the requirement, inlined ──┴─► format ──► one Python file

The functions of `write` write events into a `Script`, as those of `training.execute` carry them out in a `TrainingRun`.
"""
