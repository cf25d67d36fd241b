"""Plain values and decisions of a client. Pure: no socket, no await, no clock.

models    what comes back from commands
wire      the contracts' messages -> models
refusals  refusals as a client meets them
store     the watermark store: its Protocol, the one rule of every store, and one in memory
log       what has been applied of a run: counts, chain head, text
chains    chain values of the topics that are followed
"""
