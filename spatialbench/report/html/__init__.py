"""The report: everything about the stored rows of a track in one HTML file that needs no network.

``page.py`` puts the sections together; every section is a module of its own, which takes a ``material.Material`` and
returns markup. Text becomes markup in ``elements.tag`` alone, which escapes it. ``report.css`` and the two scripts are
written into the file when it is made.
"""
