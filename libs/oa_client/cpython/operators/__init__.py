"""The functions for operators of an installation, on the internal port of control, with the operators' token.

audit         the audit log of an installation
calls         the call that all of them make
orgs          all orgs, whoever their members are
policy        who may do what, and why not
routes        web routes, canaries and maintenance
sessions      where people are signed in
signing_keys  the keys that sign tokens
subjects      people and service accounts: who is let in
"""
