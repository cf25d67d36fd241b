"""How a service starts, runs and stops. `lifecycle` shows what a service's `__main__` looks like."""
