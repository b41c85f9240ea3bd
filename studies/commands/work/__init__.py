"""What commands do when they are called, apart from their options so that ``--help`` is quick."""
