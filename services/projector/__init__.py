"""The projector: read models and summary topics, derived from runtime's log and from nothing else.

projection   keeps the read models up to date with the log, entry after entry, each applied once
summaries    how runs appear in lists: projected from their events, and read
journal      the topics on which summaries are published, served to gateways

Postgres: schema `projection`, role `projector_app`.
"""
