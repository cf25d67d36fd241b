"""What is decided of invitations, and the mail that tells of one."""
