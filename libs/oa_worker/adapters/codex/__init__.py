"""The built-in adapter "codex": one turn of a Codex thread is one run. docs/codex.md is the manual.

adapter    a run's input in; what became of its turn out
inputs     what a run gives, and what it gets
turn       one turn: from its app-server's start to its end
lock       which threads are at a turn, for all workers that share a home
talk       what goes into a turn while it runs: answers of people, and what they say
asking     what Codex asks, as people are asked (pure)
events     which events a notification comes to (pure)
fitting    JSON from elsewhere as an event may hold it (pure)
server     the app-server: a process, its requests and their answers
lines      its output, cut into messages (pure)
limits     every limit, with its default
"""
