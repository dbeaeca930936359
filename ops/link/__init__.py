"""A slow link on one machine: a TCP proxy that holds bytes back as a rate and a round trip would."""
