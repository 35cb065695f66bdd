"""Hypothesis strategies for plans. They know names and shapes and draw plain data: no torch is imported here.

`plans` has the strategies. What they are made of are functions of `draw`, which also the rules of a state machine have:
a strategy that is built anew for each draw costs more than the plan that it draws.
"""
