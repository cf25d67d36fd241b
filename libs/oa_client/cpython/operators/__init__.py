"""What operators of an installation do, by the internal port of control, with the operators' token.

audit     the audit log of an installation
calls     one call, whatever it asks
routes    web routes, canaries and maintenance
subjects  people and service accounts: who is let in
"""
