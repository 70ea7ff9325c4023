"""Rows by the million: read by Arrow, hashed as vectors, sent to all owners at once; and out again."""
