"""Pictures and tables of what was predicted and how well."""
