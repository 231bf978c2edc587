"""Everything of Ray: actors, `RayCohort`, Tune trials, the cluster, gauges."""
