"""Read a page back."""

from html.parser import HTMLParser


class PageReader(HTMLParser):
    """Tables by id: rows of cells, each its attributes and its text; and everything that is text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.headings, self.texts = {}, [], []
        self._table, self._cell, self._heading, self._hidden = None, None, None, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self._table = self.tables.setdefault(attributes.get("id", ""), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("th", "td"):
            self._cell = {**attributes, "text": "", "tag": tag}
            self._table[-1].append(self._cell)
        elif tag in ("h1", "h2"):
            self.headings.append("")
            self._heading = True
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._cell = None
        self._heading = self._heading and tag not in ("h1", "h2")
        self._hidden = False

    def handle_data(self, data):
        if self._hidden:
            return
        self.texts.append(data)
        if self._cell is not None:
            self._cell["text"] += data
        if self._heading:
            self.headings[-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def row(self, table, method):
        return next(row for row in self.tables[table][1:] if row[0].get("text").startswith(method))
