"""What an operator of an installation does with `oa admin`."""
