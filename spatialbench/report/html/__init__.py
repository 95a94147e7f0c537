"""The report: everything about the stored rows of a track in one HTML file that works offline.

``inputs.py`` reads; ``tables.py``, ``figures.py`` and ``record_browser.py`` turn that into plain
values; ``page.py`` renders them with the templates, which escape all text.
"""
