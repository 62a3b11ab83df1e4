"""The engine: steps build artifacts from artifacts in tasks that exchange files and may die at any point."""
