"""A backbone handed on: exported in forms that others read, and pushed to the Hugging Face hub."""
