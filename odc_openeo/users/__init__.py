"""Accounts, sign-in and browser sessions."""
