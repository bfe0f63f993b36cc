"""Files and folders that are there completely or not at all, locks, and tables read and written one way."""
