"""What other programs read of a run: junit.xml, metrics.prom and the JSON of `show`."""
