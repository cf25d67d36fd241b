"""An installation: its ports, its secrets, the environment of its services, and the state of a running one."""
