"""The projector: read models and summary topics, derived from runtime's log and from nothing else.

domain     what an event does to a summary, what a batch does to the read model; pure
app        the tail that applies batches, topics, reads
store      Postgres, schema `projection`, role `projector_app`
grpc_api   the client of LogService; TopicService and ReadService
"""
