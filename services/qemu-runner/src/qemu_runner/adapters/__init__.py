"""Adapters: what the runner reaches outside of itself, translated at the border."""
