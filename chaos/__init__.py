"""Ring 3: real processes under real faults, judged by what database, host and clients say afterwards."""
