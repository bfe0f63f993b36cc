"""Images and label maps in files: headers, grids, values; what cannot be read, and why."""
