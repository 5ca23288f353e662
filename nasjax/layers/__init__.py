"""The operations of the search spaces, one file a family."""
