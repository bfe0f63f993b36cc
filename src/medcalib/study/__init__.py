"""Studies: many runs of bundles from one file, and the report that compares them."""
