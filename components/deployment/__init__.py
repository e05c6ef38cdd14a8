"""Components of the category deployment."""
