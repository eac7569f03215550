"""What the integration tests stand on: a running stack, guests, a validating client, evidence."""
