"""A small client of the QEMU guest agent, for guests that nobody trusts."""
