"""Calibrated, uncertainty-aware medical image segmentation and classification as MONAI bundles."""

__version__ = "0.1.0"
