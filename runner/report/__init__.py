"""Reports from the runs on disk: lists, tables, curves and figures. Nothing here imports torch."""
