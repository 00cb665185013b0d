"""The STAC API: Items of collections, searches and assets."""
