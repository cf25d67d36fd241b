"""The built-in adapter "codex": one turn of a Codex thread is one run. docs/codex.md is the manual.

adapter    a run's input in; the result of its turn out
inputs     the input and the result of a run
turn       one turn: from its app-server's start to its end
lock       locks of the threads that are at a turn, for all workers that share a home
talk       what goes into a turn while it runs: people's answers, and what they say
asking     Codex's questions, in the form in which people are asked (pure)
events     the events of a run that a notification becomes (pure)
fitting    JSON from elsewhere as an event may hold it (pure)
server     the app-server: a process, its requests and their answers
lines      its output, cut into messages (pure)
limits     every limit, with its default
"""
