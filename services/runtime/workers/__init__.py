"""Workers: attached over streams, given runs, and looked after."""
