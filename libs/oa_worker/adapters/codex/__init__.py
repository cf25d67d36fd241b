"""The built-in adapter "codex": one turn of a Codex thread is one run. docs/codex.md is the manual.

adapter    a run's input in; what became of its turn out
inputs     what a run gives, and what it gets
turn       one turn: from its app-server's start to its end
talk       what goes into a turn while it runs: approvals, and what people say
report     what goes out: the app-server's notifications as events of the run
events     which events a notification comes to (pure)
fitting    JSON from elsewhere as an event may hold it (pure)
server     the app-server: a process, its requests and their answers
lines      its output, cut into messages (pure)
limits     every limit, with its default
"""
