"""Scripts that reproduce a failing case: torch and the implementation's own calls, nothing of the suite.

    case ──► plan ──► both loops as source ─────┐
      └────► body of the requirement, inlined ──┴─► format ──► one Python file

Events write themselves (`Event.spell`) into a `Script`, as they happen to a `Run`.
"""
