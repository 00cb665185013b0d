"""Handling common to all requests and responses: logging, rate limits, headers, compression, errors."""
