"""Blobs as objects of a bucket: MinIO or any other S3 service, through the `minio` client.

An object's key cannot be changed, and its digest is known only at its end. So the bytes stay under a key
of their own, `data/<id>`, and `blobs/sha256/<hex>/<id>`, an empty object, says that they are that blob:
writing it is the commit, and costs the same for every size. objects.py has the whole layout.
"""
