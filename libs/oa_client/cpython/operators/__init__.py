"""What operators of an installation do, by the internal port of control, with the operators' token.

audit         the audit log of an installation
calls         one call, whatever it asks
orgs          orgs, whoever their members are
policy        who may do what, and why not
routes        web routes, canaries and maintenance
sessions      where people are signed in
signing_keys  the keys that sign tokens
subjects      people and service accounts: who is let in
"""
