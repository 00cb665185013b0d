"""Data of users on the back-end: files, collections, workspaces, user-defined processes."""
