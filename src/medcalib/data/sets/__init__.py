"""Published datasets: how each lies on disk and how it is divided."""
