"""Fetching images from URLs: whom the store speaks to, how, and that only what was promised is kept.

The store opens connections on behalf of users, from inside the control plane: every address is held against
the policy before anything is sent to it.
"""
