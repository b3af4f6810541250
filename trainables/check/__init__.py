"""What is wrong with the data, row by row."""
