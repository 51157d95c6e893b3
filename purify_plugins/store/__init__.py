"""The store of certificates: an append-only record of the answers that were handed out, by digest.

Its chain is over all processes that write to it; that of `purify_plugins.signing`, which readers check, is
over the certificates of one.
"""
