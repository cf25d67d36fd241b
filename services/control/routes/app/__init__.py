"""The decisions of operators, how replicas follow them, and how canaries are run."""
