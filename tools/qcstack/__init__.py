"""Runs the five services as plain processes on one host: what `make up`, `down`, `status` and `demo` do.

Standard library only, so that it can say what is missing before anything is installed.
"""
