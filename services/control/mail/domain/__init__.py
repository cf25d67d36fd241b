"""What is decided of addresses and of mail."""
