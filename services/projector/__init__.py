"""The projector: read models and summary topics, derived from runtime's log and from nothing else.

projection     keeps the read models up to date with the log, entry after entry, each applied once
summaries      how runs appear in lists: projected from their events, and read
workers        the workers of each org, and the runs that they hold
notifications  what a person is told about the runs that they started
places         lost places: who has lost one is told nothing more about the runs of the org
journal        the topics on which all of these are published, served to gateways

Postgres: schema `projection`, role `projector_app`.
"""
