"""Components of the category training."""
