"""What people are told by mail of their own account, so that they notice what was not them."""
