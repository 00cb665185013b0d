"""Jobs while parts of the service are killed at random: none may be lost, doubled or wrong."""
