"""The image store: names that point to content-addressed disk images, and the pins that keep them."""
