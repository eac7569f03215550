"""The catalogue: images, pins, idempotency keys and the outbox, in SQL.

Every change commits together with the event that tells of it. Bytes are not kept here.
"""
