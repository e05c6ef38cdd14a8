"""Components of the category optimization."""
