"""Product definitions, sample scenes, and ways to put data into the Open Data Cube index.

Operators index with the `datacube` command; the functions here call that same command (`index`), turn STAC
Items into ODC datasets (`stac`), and make sample scenes (`samples`). Apart from `catalog`, this is the only
package that may import `datacube`: it writes to the index, while `catalog` reads from it. README.md is the
guide for operators.
"""
