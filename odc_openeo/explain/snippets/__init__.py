"""Functions that programs contain where no library has them: their source is copied as it is."""
