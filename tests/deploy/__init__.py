"""What is deployed beside the services: container images and alert rules."""
