"""What the papers claim (results/published/claims.csv), held against runs: one small expression for each claim."""
