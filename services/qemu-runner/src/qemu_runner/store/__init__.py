"""What the runner keeps on this host's file system: records, machines' files, base images, console logs.

There is one implementation of each, used by the unit tests too; what has a fake stands in `ports`.
"""
