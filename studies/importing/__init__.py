"""Import of other programs' trials: their files, and the search space behind them."""
