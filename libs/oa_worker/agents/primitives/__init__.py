"""An agent's actions in its run, each once, whatever dies.

- `saying`: text, tool calls, usage, progress. `steps`: actions that are performed once.
- `requests`: questions for people. `inbox`: inputs from people. `children`: runs that a run starts.
- `checkpoints`: what a run saves. `takeover`: how a function that begins again gets its run's past.
- `ending`: a run that is being canceled. `times`: times that begin now. `loops`: the loop in which a run is used.
"""
