"""One module for each claim of the talk "A Case for Page Table Reclaim" (Manaouil and Barbalace)."""
