"""Series from a PACS, objects to it, and the loop that segments each new series that arrives."""
