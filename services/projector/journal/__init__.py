"""The journals of summary topics: written in the batch's transaction, served as topics."""
