"""The commands' work, apart from their options so that ``--help`` is quick."""
