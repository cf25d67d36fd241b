"""The four processes. None imports another; they meet over the contracts."""
