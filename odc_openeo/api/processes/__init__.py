"""Predefined and user-defined processes over HTTP."""
