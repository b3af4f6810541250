"""A base in memory: built, given an adapter, in the precision that the device can do."""
