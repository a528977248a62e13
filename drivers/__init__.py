"""What a driver is: contracts, records and errors, and the drivers that ship."""
