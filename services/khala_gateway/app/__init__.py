"""What happens in the gateway: feeds, connections, delivery; and the Protocols that its doors implement."""
