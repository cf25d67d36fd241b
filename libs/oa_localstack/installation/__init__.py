"""What an installation is: its ports, its secrets, what its services are told, and what is known of a running one."""
