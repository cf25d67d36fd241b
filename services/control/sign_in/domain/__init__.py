"""What is decided of codes and of addresses."""
