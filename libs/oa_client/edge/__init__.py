"""The public HTTP edge.

calls      Connect unary calls, errors as Refusals
auth       signing in, staying signed in (one refresh at a time)
api_keys   access tokens of a service account
commands   the commands and reads of a principal, typed; parts of them: talk, schedules, orgs, own_keys, audit
new_ids    ids that a client creates
"""
