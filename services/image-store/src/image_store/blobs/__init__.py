"""Where bytes are kept: the port `BlobStore` and its backends."""
