"""How work is done: steps make artifacts from artifacts, by tasks that exchange files and may die at any point."""
