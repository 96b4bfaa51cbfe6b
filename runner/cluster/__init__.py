"""The virtual cluster as plain data and arithmetic: links, compute, failures, what the modelled work costs.

Nothing here knows of tensors, algorithms or events; `runner.runtimes.simulator` asks, with a virtual time in hand.
All times are seconds, all sizes bytes, all bandwidths bytes per second and direction.
"""
