"""Other people's trials: reading their files, and the search space behind them."""
