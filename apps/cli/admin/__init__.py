"""The operations of `oa admin` on an installation."""
