"""Tables, plots and one self-contained page, from a storage alone."""
