"""Certificates: read, verified and explained."""
