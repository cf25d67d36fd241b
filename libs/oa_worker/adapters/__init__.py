"""What executes runs: one folder for each adapter."""
