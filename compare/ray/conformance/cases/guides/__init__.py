"""What Ray's user guides show, guide by guide, in programs of our own."""
