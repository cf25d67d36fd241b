"""What is deployed beside the services: alert rules."""
