"""Components of the category data_processing."""
