"""What Codex asks people, and what it is told of their answers. Who asks them is given: no I/O is here.

questions    a request of Codex, and what becomes of it; approvals
user_input   questions of its own
elicitation  what its MCP servers ask
forms        the fields of their forms
"""
