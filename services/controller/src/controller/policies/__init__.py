"""Carrying out policies: who is due when, and the operations that are filed for it."""
