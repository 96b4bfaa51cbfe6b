"""What `experiments` does beyond tables and figures: following runs, stopping them, running them again, and doctor."""
