"""The sections of the page, one to a file; each registers itself with `orchestrator.report.section`."""
