"""Builders of guest images from Debian packages: no root, no loop devices, no network but a mirror."""
