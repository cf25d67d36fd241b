"""Network and storage for the core, on CPython: httpx, websockets, files and SQLite.

network         Http on httpx; sockets, which websocket opens
sqlite_store    the watermark store in SQLite
files           credentials, the device's id, and other small files
artifact_files  replay artifacts as files
site            a client of one site with all of these
operators       the functions for operators, on control's internal port
"""
