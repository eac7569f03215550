"""Gives a host without container tools or registry what the compose stack needs: an engine and base images.

Standard library only. Everything is installed from Debian with apt's own sources and keys; whatever it
starts, it can end without a trace.
"""
