"""The openEO processes, one module per category of the specification. Importing it registers them all."""
