"""The benchmark: what a step of training costs, and how much memory, in each way of stepping an optimizer."""
