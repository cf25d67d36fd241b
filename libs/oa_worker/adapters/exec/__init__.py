"""The built-in adapter "exec": a command below a warden, and what it writes."""
