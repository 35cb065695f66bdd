"""Hypothesis strategies for plans, which draw plain data without importing torch.

`plans` and `on_ranks` have the strategies. They and the rules of the state machine call functions of `draw`, since to
build a strategy for each draw would take longer than to run the plan.
"""
