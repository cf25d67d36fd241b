"""What Codex asks people, and what it is told of their answers. Callers pass in the asking: no I/O is here.

questions    a request of Codex, and what becomes of it; approvals
user_input   Codex's own questions
elicitation  questions of its MCP servers
forms        the fields of their forms
"""
