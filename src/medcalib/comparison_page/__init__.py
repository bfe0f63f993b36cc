"""Write a comparison as one page that opens offline, and its figures for printing."""

from medcalib.comparison_page.decay_rows import shift_rows
from medcalib.comparison_page.page import write_page
from medcalib.comparison_page.page_context import PageContext

__all__ = ["PageContext", "shift_rows", "write_page"]
