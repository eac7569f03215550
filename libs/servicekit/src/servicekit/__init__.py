"""Package servicekit."""
