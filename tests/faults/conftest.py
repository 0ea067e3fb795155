"""The tests of the campaign import it as its faults do."""

import campaign

__all__ = ["campaign"]
