"""What a run is worth reading for: tables, statistics, figures, pages, traces."""
