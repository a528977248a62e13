"""Which VM lies on which storage unit: the graph of an estate, its queries, and its importers."""
