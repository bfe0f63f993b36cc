"""How calibrators are fitted on a stream of cases."""
