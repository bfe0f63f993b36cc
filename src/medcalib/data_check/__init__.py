"""What is wrong or unusual with a dataset, told before a training meets it."""
