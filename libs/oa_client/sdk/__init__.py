"""The SDK with which programs start runs and follow them. They import it as `openagents`.

client     a client of one site, signed in with an API key
runs       one run: its state, its events, its result
schedules  one schedule: runs that start by the clock
queue      when a worker gets a run, how long it may take, whether it is tried again
topics     topics of any kind: lists, notifications, workers
"""
