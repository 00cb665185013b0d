"""Product definitions, sample scenes, and ways to put data into the Open Data Cube index.

Operators index with the `datacube` command; the functions here call that same command (`index`), turn STAC
Items into ODC datasets (`stac`), and make sample scenes (`samples`). Beside `catalog`, this is the one place
that may import `datacube`: it writes to the index, while `catalog` reads from it.
"""
