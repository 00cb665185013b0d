"""Secondary web services and their map tiles over HTTP."""
