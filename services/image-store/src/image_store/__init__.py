"""Package image_store."""
