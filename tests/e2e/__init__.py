"""Containers and clusters, for real."""
