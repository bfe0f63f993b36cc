"""Plan a data fragment: read what a dataset is, measure its cases, choose, and write the YAML with its reasons."""
