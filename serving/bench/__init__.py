"""What a load test measures and what follows from it: definitions, statistics, verdicts, money. No I/O."""
