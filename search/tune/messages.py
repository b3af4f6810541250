"""What the driver and a trial say to each other: Tune carries it as dicts, and these are their keys.

The driver starts a trial with a configuration, `{NUMBER, TRIAL, AVOID}`, to which KILLS comes when the trial is tried
again. The trial answers with reports. One for each rung holds `{RUNG, RECORD}` and the score, under the name that
`rung_metric` gives it for Tune's logs. The last may instead hold FAILURE, HALT or BLIND, with RUNG 0: the trial ends
with it.
"""

# In a configuration
NUMBER = "number"  # of the trial in the study; Tune's own trial ids are random
TRIAL = "trial"  # the TrialConfig, as JSON
AVOID = "avoid"  # labels that Ray asks of the trial's node (search/tune/nodes.py)
KILLS = "memory_kills"  # how often Ray's memory guard has ended the trial's worker; without it, never

# In a report
RUNG = "rung"  # from 1
RECORD = "record"  # the whole rung (trainables.training.rungs.Rung) as a dict
FAILURE = "failure"  # why this trial cannot go on: it fails, the search continues
HALT = "halt"  # why no trial can: this one stays RUNNING, the search ends and can be resumed
BLIND = "blind"  # why no trial can on this NODE, of this ADDRESS: the trial is tried elsewhere
NODE = "node"
ADDRESS = "address"


def rung_metric(metric: str) -> str:
    """The metric's name as Tune's logs hold it."""
    return metric.replace("@", "_at_")
