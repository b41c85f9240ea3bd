"""From this project's folders to packages of OptunaHub's registry."""
