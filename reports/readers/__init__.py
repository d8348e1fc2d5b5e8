"""From the files of a store to data frames, with a warning for every fault."""
