"""What is asked of every figure that is printed."""


def assert_on_the_page(figure):
    """Nothing of a figure that was drawn lies beyond its borders."""
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
