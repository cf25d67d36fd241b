"""Proofs of a run: receipts, keys that are trusted on first use, the log of receipts, artifacts, files of events.

run_proofs    all of it, for one site: a receipt checked alone, against every event, or in the log of receipts
pins          the trusted keys
receipt_log   watches the log of receipts
audit_log     the audit log of an org
artifacts     replay artifacts: fetched whole, and read line by line
event_lines   the lines of an events file
"""
