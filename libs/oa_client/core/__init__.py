"""Plain values and decisions of a client. Pure: no socket, no await, no clock.

models    the results of commands; of some rooms: orgs, api_keys, schedules, audit
wire      the contracts' messages -> models
refusals  how a client reads a refusal
store     the watermark store: its Protocol, the rule that every store follows, and a store in memory
log       the applied part of a run's log: counts, chain head, text
chains    chain values of followed topics
cursors   cursors as text
"""
