"""What operators decide, how replicas follow it, and who runs canaries."""
