"""Places that were lost: whoever had one starts nothing more, and the runs of an org that was deleted end."""
