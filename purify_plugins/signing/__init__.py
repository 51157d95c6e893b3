"""Signatures: certificates in DSSE envelopes, their keys, and the hash chain over those of one process.

What checks them needs the standard library and `cryptography`, nothing else.
"""
