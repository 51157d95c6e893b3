"""Verification of a certificate by its reader: opened, checked, compared with what is known, explained.

All of it imports the standard library alone, and `cryptography` for signatures: `packages/purify-verify` is
built from these modules and from those that they import.
"""
