"""Compose, name, validate and run bundles.

The modules are imported one by one, so that generating a bundle loads neither torch nor MONAI.
"""
