"""The projector: read models and summary topics, derived from runtime's log and from nothing else.

projection   keeps what is derived up with the log, entry after entry, each applied once
summaries    what a run looks like in a list: projected from its events, and read
journal      the topics on which summaries are told, served to gateways

Postgres: schema `projection`, role `projector_app`.
"""
