"""Write a comparison as one page that opens offline, and its figures for printing."""

from medcalib.comparison_page.page import write_page
from medcalib.comparison_page.page_context import PageContext
from medcalib.comparison_page.shift_rows import shift_rows

__all__ = ["PageContext", "shift_rows", "write_page"]
