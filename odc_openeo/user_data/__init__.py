"""Data of users on the back-end (files, collections, workspaces, processes) and what a run uses of it."""
