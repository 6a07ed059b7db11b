"""Complete configurations, one function each; ``RECIPES`` lists them and ``book.recipe`` finds one by its name."""
