"""The contract between process graphs and processes: registration, schemas, demand, child graphs."""
