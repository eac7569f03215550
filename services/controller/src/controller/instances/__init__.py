"""What the service does: accepts requests, observes machines, files operations of its own."""
